"""A TCP proxy that cuts one connection in the middle, and counts what passed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

PIECE = 1 << 16


@dataclass
class CuttingProxy:
    """Cuts once, when `after` bytes have passed in either direction."""

    target: str
    after: int
    up: int = 0
    """Bytes that went to the server."""
    down: int = 0
    cuts: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self.target)
        there_reader, there_writer = await asyncio.open_connection(parts.hostname, parts.port)
        both = (
            asyncio.ensure_future(self._pass(reader, there_writer, upwards=True)),
            asyncio.ensure_future(self._pass(there_reader, writer, upwards=False)),
        )
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        for end in (writer, there_writer):
            end.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
                self._count(len(data), upwards)
                if not self.cuts and max(self.up, self.down) >= self.after:
                    self.cuts += 1
                    return

    def _count(self, size: int, upwards: bool) -> None:
        if upwards:
            self.up += size
        else:
            self.down += size


@asynccontextmanager
async def cutting_proxy(target: str, after: int) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(target, after)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=PIECE)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
