"""A fixed way through the launcher for a library that opens its connections itself."""

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Self

from copilot_agent.host_channel.proxy import Dial

log = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 1024
_MOST_CONNECTIONS = 4


class Forward:
    """Listens on a free port of 127.0.0.1; every connection to it goes on to host:port."""

    def __init__(self, dial: Dial, host: str, port: int) -> None:
        self._dial = dial
        self._far = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    @property
    def port(self) -> int:
        """Once entered."""
        assert self._server is not None  # noqa: S101 - a caller's mistake
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._splice(reader, writer)
        except OSError as error:
            log.info("no way to %s:%d: %s", *self._far, error)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side ends: a stream of XMPP is of no use with one direction."""
        far_reader, far_writer = await asyncio.open_connection(sock=await self._dial(*self._far))
        both = [
            asyncio.create_task(_copy(reader, far_writer)),
            asyncio.create_task(_copy(far_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.wait(both)
            far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_BLOCK_BYTES):
            writer.write(data)
            await writer.drain()
