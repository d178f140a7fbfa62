"""The link: at its trap nothing passes, afterwards everything or nothing of what it held."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Link, Trap
from tests.faults.wire import Seen, Way
from tests.harness.programs import eventually

UPLOAD = b"PUT /file HTTP/1.1\r\nContent-Length: 6\r\n\r\n"


class Manager:
    """Keeps what it is sent, and answers each connection's end."""

    def __init__(self) -> None:
        self.heard = b""
        self.cut = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                self.heard += data
        except ConnectionError:
            self.cut += 1
        writer.close()


@pytest.fixture
async def manager() -> Manager:
    return Manager()


@pytest.fixture
async def link(manager: Manager) -> AsyncIterator[Link]:
    server = await asyncio.start_server(manager.serve, "127.0.0.1", 0)
    made = Link(server.sockets[0].getsockname()[1])
    await made.start()
    yield made
    await made.stop()
    server.close()


def third_byte(seen: Seen) -> bool:
    return seen.request.method == "PUT" and seen.moved > 2


async def at_trap(link: Link, manager: Manager) -> asyncio.StreamWriter:
    """Two of six bytes have arrived."""
    link.set_trap(Trap(third_byte))
    _, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(UPLOAD + b"12")
    await eventually(lambda: manager.heard == UPLOAD + b"12", 5, "the first bytes")
    writer.write(b"3456")
    async with asyncio.timeout(5):
        await link.reached()
    return writer


async def test_what_was_held_arrives_late(link: Link, manager: Manager) -> None:
    writer = await at_trap(link, manager)
    assert manager.heard == UPLOAD + b"12"
    link.go_on()
    await eventually(lambda: manager.heard == UPLOAD + b"123456", 5, "the rest")
    writer.close()


async def test_what_was_held_is_lost(link: Link, manager: Manager) -> None:
    writer = await at_trap(link, manager)
    link.cut()
    await eventually(lambda: manager.cut == 1, 5, "the reset")
    assert manager.heard == UPLOAD + b"12"
    writer.close()


async def test_one_direction_alone_can_be_held_up(link: Link, manager: Manager) -> None:
    link.freeze(Way.UP)
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(UPLOAD + b"123456")
    writer.write_eof()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 0.1)
    assert manager.heard == b""
    link.go_on()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert manager.heard == UPLOAD + b"123456"
    writer.close()


async def test_a_manager_that_is_not_there_is_a_reset(manager: Manager) -> None:
    server = await asyncio.start_server(manager.serve, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    await link.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await link.stop()
