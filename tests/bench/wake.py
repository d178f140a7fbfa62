"""10,000 idle pilots, and as many jobs at once: how soon has each pilot been offered one?

Timed from the sending of the first submission (a request carries 1,000 jobs at most) to the last
offer received, so that storing the jobs is in it. `worst-job` is the longest of any one job, from
the sending of its submission to its offer, were they offered in the order of submission.
"""

import time
from dataclasses import dataclass

from copilot_agent.protocol.job import JobSpec, Requirements
from tests.bench import bare_sockets
from tests.bench.frame import Frame
from tests.bench.pilots import Pilots, pilots, secrets
from tests.bench.processes import cpu_seconds
from tests.bench.results import Result, at_most
from tests.harness import programs

NAME = "wake"
DESCRIPTION = "10,000 idle pilots are offered a job each"
SECONDS = 300.0
MOST_SECONDS = 2.0
PILOTS, BATCH = 10_000, 1000


async def run(frame: Frame) -> list[Result]:
    count = frame.pick(PILOTS, 20)
    manager = programs.ManagerProgram(frame.root, heartbeat_seconds=300.0, lease_seconds=3000.0)
    try:
        await manager.start()
        made = await secrets(manager, count)
        async with pilots([manager.url], made, count=count, mode="hold", stamps=True) as fleet:
            frame.say(f"{count} pilots are attached")
            woken = await measure(manager, fleet, count)
    finally:
        await manager.stop()
    floor = await bare_sockets.wake_seconds(count)
    frame.say(f"{bare_sockets.PEER}: {floor:.2f} s")
    return results(woken, floor)


@dataclass(frozen=True)
class Woken:
    """Seconds of one clock; `at` has those of each offer."""

    begun: float
    sent: list[float]
    """Each job's submission."""
    submitted: float
    at: list[float]
    cpu_us: float


async def measure(manager: programs.ManagerProgram, fleet: Pilots, count: int) -> Woken:
    assert manager.process is not None
    pids = [manager.process.pid]
    job = JobSpec(
        experiment=programs.EXPERIMENT,
        command=("true",),
        requirements=Requirements(memory_mib=256, disk_mib=256),
    )
    cpu, begun = cpu_seconds(pids), time.monotonic()
    async with programs.client(manager) as client:
        sent: list[float] = []
        for start in range(0, count, BATCH):
            batch = [job] * min(BATCH, count - start)
            sent += [time.monotonic()] * len(batch)
            await client.jobs.submit(batch)
    submitted = time.monotonic()

    async def all_offered() -> bool:
        return (await fleet.read()).offers >= count

    await programs.eventually(all_offered, 60, f"{count} offers")
    used = 1e6 * (cpu_seconds(pids) - cpu) / count
    at = sorted((await fleet.stamps()).values())
    return Woken(begun, sent, submitted, at, used)


def results(woken: Woken, floor: float) -> list[Result]:
    worst = max(at - sent for sent, at in zip(woken.sent, woken.at, strict=True))
    beside = (bare_sockets.PEER, floor, woken.cpu_us)
    return [
        Result("wake.all", woken.at[-1] - woken.begun, "s", at_most(MOST_SECONDS), *beside),
        Result("wake.worst-job", worst, "s"),
        Result("wake.first", 1000 * (woken.at[0] - woken.begun), "ms"),
        Result("wake.submitting", woken.submitted - woken.begun, "s"),
    ]
