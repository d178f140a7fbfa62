"""How many heartbeats a second one core of a manager takes in.

Pilots that hold a job each say so, with its progress, as often as it takes to keep the manager
busy; what a heartbeat costs in CPU says how many of them a core could do.
"""

import asyncio
from dataclasses import dataclass

from copilot_agent.protocol.job import JobSpec, Requirements
from tests.bench import bare_sockets
from tests.bench.frame import Frame
from tests.bench.pilots import Pilots, pilots, secrets
from tests.bench.processes import cpu_seconds, cpu_since
from tests.bench.results import Result, at_least
from tests.harness import programs

NAME = "heartbeats"
DESCRIPTION = "heartbeats a second on one core, each renewing a lease"
LEAST = 15_000.0
BATCH = 500


@dataclass(frozen=True)
class Cost:
    beats: int
    cpu_us: float
    """Of the manager, for one."""


async def run(frame: Frame) -> list[Result]:
    count, rate, seconds = frame.pick((1000, 4000.0, 15.0), (8, 100.0, 0.5))
    manager = programs.ManagerProgram(frame.root, heartbeat_seconds=60.0, lease_seconds=600.0)
    try:
        await manager.start()
        made = await secrets(manager, count)
        async with pilots([manager.url], made, count=count, mode="hold") as fleet:
            await give_each_a_job(manager, fleet, count)
            busy = await cost(manager, fleet, rate, seconds)
    finally:
        await manager.stop()
    floor = await bare_sockets.beats_per_core(frame.pick(3.0, 0.5))
    frame.say(f"{busy.beats} heartbeats, {busy.cpu_us:.1f} us each; floor {floor:.0f}/s")
    beside = (f"{bare_sockets.PEER}, each message answered", floor, busy.cpu_us)
    return [Result("heartbeats.per-core", 1e6 / busy.cpu_us, "/s", at_least(LEAST), *beside)]


async def give_each_a_job(manager: programs.ManagerProgram, fleet: Pilots, count: int) -> None:
    """Returns when each has said that it holds one."""
    job = JobSpec(
        experiment=programs.EXPERIMENT,
        command=("true",),
        requirements=Requirements(memory_mib=256, disk_mib=256),
    )
    async with programs.client(manager) as client:
        for start in range(0, count, BATCH):
            await client.jobs.submit([job] * min(BATCH, count - start))

    async def all_have_one() -> bool:
        return (await fleet.read()).offers >= count

    await programs.eventually(all_have_one, 60, "an offer for each pilot")


async def cost(
    manager: programs.ManagerProgram, fleet: Pilots, rate: float, seconds: float
) -> Cost:
    """While heartbeats come at `rate` for so many seconds; what came late counts too."""
    assert manager.process is not None
    pids = [manager.process.pid]
    await fleet.heartbeat(rate)
    await asyncio.sleep(seconds / 5)
    cpu, before = cpu_seconds(pids), await fleet.read()
    await asyncio.sleep(seconds)
    used, after = cpu_since(pids, cpu), await fleet.read()
    await fleet.heartbeat(0)
    if after.refused or after.closed:
        raise RuntimeError(f"{after.refused} frames were refused, {after.closed} pilots left")
    beats = after.heartbeats - before.heartbeats
    return Cost(beats, 1e6 * used / beats)
