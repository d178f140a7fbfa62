"""`/bin/true` through one real agent and one real manager, all limits on, without a VM.

Four slots, a window of eight, jobs submitted in batches of 100 while others run. Run as root, so
that each payload has a uid, namespaces and control groups of its own. Beside it, in the same run:
bare spawns of /bin/true by four threads, which is what the kernel alone asks for.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.job import JobSpec, JobState, Requirements
from job_manager_adapter.client import Client
from tests.bench.frame import Frame
from tests.bench.processes import rss_bytes
from tests.bench.results import Result, at_least, at_most
from tests.harness import programs

NAME = "agent"
DESCRIPTION = "/bin/true through one real agent: 4 slots, window 8, all limits on"
SECONDS = 1800
JOBS, QUICK_JOBS = 50_000, 200

SLOTS, WINDOW, BATCH = 4, 8, 100
WARM_UP = 200
POLL_SECONDS = 0.25
POINTS = (0.1, 0.25, 0.5, 1.0)
"""Shares of all jobs at which memory is shown; it grows from the first to the last."""
SPAWNS = 400
PAYLOAD_USER = "200000"
PEER = "bare spawns of /bin/true"
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
SPEC = JobSpec(
    experiment=programs.EXPERIMENT,
    command=("/bin/true",),
    requirements=Requirements(memory_mib=64, disk_mib=64),
)


def cpu_seconds(pid: int, *, reaped: bool = False) -> float:
    """CPU time of one process with all its threads, or of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[13:15] if reaped else fields[11:13]
    return (int(user) + int(system)) / TICKS


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True)
class Cost:
    """CPU seconds, by who used them."""

    agent: float
    starter: float
    payloads: float
    """From the fork on: with their own confinement."""
    manager: float

    def since(self, before: "Cost", jobs: int) -> dict[str, float]:
        """Microseconds for each job."""
        spent = {name: getattr(self, name) - getattr(before, name) for name in vars(self)}
        return {name: round(1e6 * seconds / jobs) for name, seconds in spent.items()}


@dataclass(frozen=True)
class Stage:
    manager: int
    agent: int
    starter: int
    client: Client

    def cost(self) -> Cost:
        return Cost(
            agent=cpu_seconds(self.agent),
            starter=cpu_seconds(self.starter),
            payloads=cpu_seconds(self.agent, reaped=True),
            manager=cpu_seconds(self.manager),
        )

    async def succeeded(self) -> int:
        counts = (await self.client.jobs.counts()).counts
        if counts.get(JobState.FAILED):
            raise RuntimeError("jobs failed: see the agent's log")
        return counts.get(JobState.SUCCEEDED, 0)


@asynccontextmanager
async def stage(root: Path) -> AsyncIterator[Stage]:
    """A manager with the policy of real use, and an agent in its own directory."""
    options = ["--cores", str(SLOTS), "--window", str(WINDOW), "--memory", "4096", "--disk", "4096"]
    options += ["--payload-user", PAYLOAD_USER] if os.geteuid() == 0 else []
    async with (
        programs.manager(root / "manager", heartbeat_seconds=30.0, lease_seconds=300.0) as manager,
        programs.agent(manager, options=options) as agent,
        programs.client(manager) as client,
    ):
        for each in (root, root / "manager"):
            each.chmod(0o711)  # payloads of another user must be able to pass through
        if manager.process is None or agent.process is None:
            raise RuntimeError("a program did not start")
        pid = agent.process.pid
        await programs.eventually(lambda: children(pid), 20, "the starter of payloads")
        yield Stage(manager.process.pid, pid, min(children(pid)), client)


Memory = list[tuple[int, float]]
"""Jobs done, and the agent's memory in MiB at that time."""


async def work(on: Stage, jobs: int) -> Memory:
    """Has so many jobs done."""
    before, submitted = await on.succeeded(), 0
    memory: Memory = []
    while (done := await on.succeeded() - before) < jobs:
        while submitted < jobs and submitted - done < 3 * BATCH:
            await on.client.jobs.submit([SPEC] * min(BATCH, jobs - submitted))
            submitted += BATCH
        memory.append((done, rss_bytes(on.agent) / MIB))
        await asyncio.sleep(POLL_SECONDS)
    memory.append((jobs, rss_bytes(on.agent) / MIB))
    return memory


def at_points(memory: Memory, jobs: int) -> Memory:
    """As first seen when so many jobs were done."""
    return [next(each for each in memory if each[0] >= share * jobs) for share in POINTS]


def spawns() -> tuple[float, float]:
    """Bare spawns of /bin/true: how many a second, and microseconds of CPU for each."""

    def spawn(_: int) -> None:
        pid = os.posix_spawn("/bin/true", ["/bin/true"], {})
        os.waitpid(pid, 0)

    before, begin = os.times(), time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as threads:
        list(threads.map(spawn, range(SPAWNS)))
    after, seconds = os.times(), time.perf_counter() - begin
    return SPAWNS / seconds, 1e6 * (sum(after[:4]) - sum(before[:4])) / SPAWNS


async def run(frame: Frame) -> list[Result]:
    jobs = frame.pick(JOBS, QUICK_JOBS)
    async with stage(frame.root) as on:
        await work(on, WARM_UP)
        frame.say(f"{jobs} jobs")
        before, begin = on.cost(), time.perf_counter()
        memory = await work(on, jobs)
        seconds, cost = time.perf_counter() - begin, on.cost().since(before, jobs)
    points = at_points(memory, jobs)
    frame.say("memory " + ", ".join(f"{mib:.1f} MiB after {done} jobs" for done, mib in points))
    return results(jobs / seconds, cost, points)


def results(rate: float, cost: dict[str, float], memory: Memory) -> list[Result]:
    """`memory` as at the points."""
    bare_rate, bare_us = spawns()
    own = cost["agent"] + cost["starter"]
    return [
        Result(NAME, rate, "/s", at_least(200), PEER, bare_rate, own),
        Result(f"{NAME}.cpu", own, "us", at_most(4000), PEER, bare_us, own),
        *(Result(f"{NAME}.cpu_{part}", spent, "us") for part, spent in cost.items()),
        *(
            Result(f"{NAME}.rss_at_{share * 100:.0f}_percent", mib, "MiB")
            for share, (_, mib) in zip(POINTS[:-1], memory, strict=False)
        ),
        Result(f"{NAME}.rss", memory[-1][1], "MiB", at_most(64)),
        Result(f"{NAME}.rss_growth", memory[-1][1] - memory[0][1], "MiB", at_most(2)),
    ]
