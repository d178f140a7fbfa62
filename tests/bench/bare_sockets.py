"""The floor beside a manager's connections: aiohttp's WebSockets with nothing behind them."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from job_manager_adapter.descriptors import raise_limit
from tests.bench.pilots_wire import SocketWire
from tests.bench.processes import cpu_seconds, cpu_since, rss_bytes

WAKE = "wake"
JOB = "x" * 1000
"""About as long as an offer."""
BEAT = b"x" * 300
"""About as long as a heartbeat."""
PARALLEL = 32
WARM = 100
PEER = "bare WebSockets of aiohttp"


class BareSockets:
    """Connections to the bare server, all from this process."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self._port = port
        self._wires: list[SocketWire] = []
        self._opened = self._heard = 0
        self._changed = asyncio.Event()
        self._beating = False

    async def connect(self, count: int) -> None:
        due, loop = iter(range(count)), asyncio.get_running_loop()
        goal = self._opened + count

        async def work() -> None:
            for _ in due:
                await loop.create_connection(self._wire, "127.0.0.1", self._port)

        await asyncio.gather(*(work() for _ in range(PARALLEL)))
        await self._until(lambda: self._opened >= goal)

    async def wake(self) -> float:
        """Seconds until every connection has been spoken to."""
        self._heard, begun = 0, time.monotonic()
        self._wires[0].send(WAKE.encode())
        await self._until(lambda: self._heard >= len(self._wires))
        return time.monotonic() - begun

    async def answer(self) -> float:
        """Seconds until one message has been answered."""
        self._heard, begun = 0, time.monotonic()
        self._wires[0].send(BEAT)
        await self._until(lambda: self._heard > 0)
        return time.monotonic() - begun

    async def beat(self, seconds: float) -> float:
        """CPU microseconds of the server for a message and its answer, while it is kept busy."""
        self._heard, self._beating = 0, True
        cpu = cpu_seconds([self.pid])
        for wire in self._wires:
            wire.send(BEAT)
        await asyncio.sleep(seconds)
        self._beating = False
        return 1e6 * cpu_since([self.pid], cpu) / self._heard

    def close(self) -> None:
        for wire in self._wires:
            wire.close()

    def _wire(self) -> SocketWire:
        def opened() -> None:
            self._opened += 1
            self._changed.set()

        def text(_: bytes) -> None:
            self._heard += 1
            if self._beating:
                wire.send(BEAT)
            else:
                self._changed.set()

        wire = SocketWire("", opened, text, lambda _: None)
        self._wires.append(wire)
        return wire

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def bare_sockets(count: int) -> AsyncIterator[BareSockets]:
    """A server in a process of its own and `count` connections to it."""
    raise_limit()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare_sockets_program"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        sockets = BareSockets(process.pid, int(await process.stdout.readline()))
        await sockets.connect(count)
        yield sockets
        sockets.close()
    finally:
        process.kill()
        await process.wait()


async def memory_each(count: int) -> float:
    """KiB of user memory for each of so many connections."""
    async with bare_sockets(min(WARM, count)) as sockets:
        before = rss_bytes(sockets.pid)
        await sockets.connect(count)
        return (rss_bytes(sockets.pid) - before) / 1024 / count


async def wake_seconds(count: int) -> float:
    async with bare_sockets(count) as sockets:
        return await sockets.wake()


async def beats_per_core(seconds: float) -> float:
    """Messages a second, each answered, that one core could do."""
    async with bare_sockets(PARALLEL) as sockets:
        return 1e6 / await sockets.beat(seconds)


async def answer_seconds(count: int, pause: float) -> list[float]:
    """Of each of `count` messages, one after the other with a pause before it."""
    found = []
    async with bare_sockets(1) as sockets:
        for _ in range(count):
            await asyncio.sleep(pause)
            found.append(await sockets.answer())
    return found
