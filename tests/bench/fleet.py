"""What a job costs in CPU with 64 pilots, and with 10,000.

As many jobs as the large fleet has pilots go through each fleet, at the same pace: the pilots take
them, say that they run, and report them done, each step answered after its commit. The large
fleet's other pilots are attached and hungry meanwhile.
"""

import asyncio

from copilot_agent.protocol.job import JobSpec, Requirements
from job_manager_adapter.client import Client
from tests.bench.frame import Frame
from tests.bench.pilots import Pilots, pilots, secrets
from tests.bench.processes import cpu_seconds, cpu_since
from tests.bench.results import Result, at_most
from tests.harness import programs

NAME = "fleet"
DESCRIPTION = "CPU per job with 64 and with 10,000 pilots"
SECONDS = 360.0
MOST = 1.5
BATCH = 64
"""Jobs of one submission; the next follows when they are done."""


async def run(frame: Frame) -> list[Result]:
    counts = frame.pick((64, 1000, 10_000), (8, 24))
    jobs = frame.pick(6400, 64)
    costs = {}
    for count in counts:
        costs[count] = await cost(frame, count, jobs)
        frame.say(f"{count} pilots: {costs[count]:.0f} us a job")
    few, many = counts[0], counts[-1]
    ratio = costs[many] / costs[few]
    return [
        Result("fleet.cpu-ratio", ratio, "×", at_most(MOST), f"{few} pilots", 1.0, costs[many]),
        *(Result(f"fleet.{count}-pilots", us, "us", cpu_us=us) for count, us in costs.items()),
    ]


async def cost(frame: Frame, count: int, jobs: int) -> float:
    """CPU microseconds of the manager per job."""
    root = frame.root / str(count)
    manager = programs.ManagerProgram(root, heartbeat_seconds=300.0, lease_seconds=3000.0)
    try:
        await manager.start()
        made = await secrets(manager, count)
        async with pilots([manager.url], made, count=count) as fleet:
            frame.say(f"{count} pilots are attached")
            return await work(manager, fleet, jobs)
    finally:
        await manager.stop()


async def work(manager: programs.ManagerProgram, fleet: Pilots, jobs: int) -> float:
    assert manager.process is not None
    pids = [manager.process.pid]
    job = JobSpec(
        experiment=programs.EXPERIMENT,
        command=("true",),
        requirements=Requirements(memory_mib=256, disk_mib=256),
    )
    async with programs.client(manager) as client:
        await batch(client, fleet, [job] * BATCH)
        await asyncio.sleep(1)
        cpu = cpu_seconds(pids)
        for _ in range(jobs // BATCH):
            await batch(client, fleet, [job] * BATCH)
        used = cpu_since(pids, cpu)
    return 1e6 * used / (jobs // BATCH * BATCH)


async def batch(client: Client, fleet: Pilots, jobs: list[JobSpec]) -> None:
    """Submits them and waits until all are done."""
    before = await fleet.read()
    await client.jobs.submit(jobs)
    while (now := await fleet.read()).cycles < before.cycles + len(jobs):
        if now.refused or now.closed:
            raise RuntimeError(f"{now.refused} frames were refused, {now.closed} pilots left")
        await asyncio.sleep(0.002)
