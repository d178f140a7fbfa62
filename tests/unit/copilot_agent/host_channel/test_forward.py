"""The fixed way out for a library that opens its own connections."""

import asyncio
import socket
from contextlib import suppress

import pytest

from copilot_agent.host_channel.forward import Forward


class Far:
    """Echoes; `refuse` makes it unreachable."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.refuse = False
        self._port = 0

    async def __aenter__(self) -> "Far":
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if data == b"hang up":
                break
            writer.write(data)
        writer.close()

    async def dial(self, host: str, port: int) -> socket.socket:
        self.asked.append((host, port))
        if self.refuse:
            raise ConnectionRefusedError("not on the list")
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        return sock


async def test_bytes_pass_both_ways_to_the_one_address() -> None:
    async with Far() as far, Forward(far.dial, "xmpp.example.org", 5222) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        data = bytes(range(256)) * 2000
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
    assert far.asked == [("xmpp.example.org", 5222)]


@pytest.mark.parametrize("refuse", [True, False])
async def test_an_end_there_is_an_end_here(refuse: bool) -> None:
    async with Far() as far, Forward(far.dial, "xmpp.example.org", 5222) as forward:
        far.refuse = refuse
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        writer.write(b"hang up")
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_leaving_ends_what_is_open() -> None:
    async with Far() as far:
        async with Forward(far.dial, "xmpp.example.org", 5222) as forward:
            reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        writer.close()
