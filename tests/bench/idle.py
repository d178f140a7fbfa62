"""What an idle pilot costs a manager in memory, with 15,000 of them attached to one process.

User memory: the growth of the process's resident set. The kernel's share, about 4 KiB a socket,
is in no process. Pilots are attached, want a job, and there is none.
"""

import asyncio

from tests.bench import bare_sockets
from tests.bench.frame import Frame
from tests.bench.pilots import pilots, secrets
from tests.bench.processes import cpu_seconds, rss_bytes
from tests.bench.results import Result, at_least, at_most
from tests.harness import programs

NAME = "idle"
DESCRIPTION = "15,000 idle pilots on one manager process: memory of each"
SECONDS = 300.0
MOST_KIB, PILOTS = 24.0, 15_000
QUIET_SECONDS = 3.0


async def run(frame: Frame) -> list[Result]:
    count, warm = frame.pick((PILOTS, 100), (20, 4))
    manager = programs.ManagerProgram(frame.root, heartbeat_seconds=300.0, lease_seconds=3000.0)
    try:
        await manager.start()
        return await measure(frame, manager, warm, count)
    finally:
        await manager.stop()


async def measure(
    frame: Frame, manager: programs.ManagerProgram, warm: int, count: int
) -> list[Result]:
    """`warm` pilots make everything that is made once, and leave again."""
    assert manager.process is not None
    pid = manager.process.pid
    async with pilots([manager.url], await secrets(manager, warm), count=warm):
        pass
    await asyncio.sleep(QUIET_SECONDS)
    before, cpu = rss_bytes(pid), cpu_seconds([pid])
    made = await secrets(manager, count)
    async with pilots([manager.url], made, count=count) as fleet:
        await asyncio.sleep(QUIET_SECONDS)
        used = cpu_seconds([pid]) - cpu
        after, now = rss_bytes(pid), await fleet.read()
    frame.say(f"{now.attached} attached, {before >> 20} MiB before, {after >> 20} MiB after")
    kib = (after - before) / 1024 / count
    floor = await bare_sockets.memory_each(count)
    frame.say(f"{bare_sockets.PEER}: {floor:.1f} KiB each")
    return [
        Result("idle.memory-each", kib, "KiB", at_most(MOST_KIB), bare_sockets.PEER, floor),
        Result("idle.attached", now.attached, "1", at_least(count)),
        Result("idle.enrol-and-attach", 1e6 * used / count, "us", cpu_us=1e6 * used / count),
    ]
