"""Clients that keep the manager waiting are sent away; good ones are served meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from job_manager_adapter.transports.http.guard import ConnectionGuard
from job_manager_adapter.transports.http.server import Address, HttpServer, make_application
from tests.harness.programs import eventually

PATIENCE = 0.3


@asynccontextmanager
async def serving(*, per_address: int = 0) -> AsyncIterator[tuple[int, ConnectionGuard]]:
    guard = ConnectionGuard(request_seconds=PATIENCE, per_address=per_address, count_loopback=True)
    application = make_application(guard)

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(3 * PATIENCE)
        return web.Response(text="done")

    async def quick(_: web.Request) -> web.Response:
        return web.Response(text="done")

    application.router.add_get("/slow", slow)
    application.router.add_get("/quick", quick)
    server = HttpServer(application, guard)
    port = await server.start(Address("127.0.0.1", 0))
    try:
        yield port, guard
    finally:
        await server.stop()


async def closed_after(reader: asyncio.StreamReader) -> float:
    """Seconds until the other side hung up."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(10 * PATIENCE + 2):
        with suppress(ConnectionResetError):
            await reader.read()
    return loop.time() - start


async def test_a_silent_connection_is_closed() -> None:
    async with serving() as (port, guard):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert PATIENCE / 2 < await closed_after(reader) < 10 * PATIENCE
        assert guard.closed == 1
        writer.close()


async def test_a_head_that_drips_is_closed() -> None:
    async with serving() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def drip() -> None:
            for char in b"GET /quick HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
                writer.write(bytes([char]))
                await asyncio.sleep(PATIENCE / 10)

        dripping = asyncio.create_task(drip())
        assert await closed_after(reader) < 10 * PATIENCE
        dripping.cancel()
        writer.close()


async def test_a_second_head_that_drips_is_closed_too() -> None:
    async with serving() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"done")
        writer.write(b"GET /qu")
        assert await closed_after(reader) < 10 * PATIENCE
        writer.close()


async def test_a_request_being_served_is_left_alone() -> None:
    async with (
        serving() as (port, guard),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        async with session.get("/slow") as reply:
            assert await reply.text() == "done"
        assert guard.closed == 0


async def test_an_idle_connection_between_requests_is_kept() -> None:
    async with serving() as (port, guard):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"done")
            await asyncio.sleep(2 * PATIENCE)
        assert guard.closed == 0
        writer.close()


async def test_too_many_from_one_address_are_refused() -> None:
    async with serving(per_address=2) as (port, guard):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await closed_after(reader) < PATIENCE
        assert guard.refused == 1
        for _, other in [*held, (reader, writer)]:
            other.close()
            await other.wait_closed() if other is not writer else None

        async def is_let_in() -> bool:
            with suppress(aiohttp.ServerDisconnectedError):
                async with (
                    aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
                    session.get("/quick") as reply,
                ):
                    return reply.status == 200
            return False

        await eventually(is_let_in, 10, "a place for the next one")


async def test_five_hundred_slow_ones_do_not_stop_a_good_one() -> None:
    async with serving() as (port, _):
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
        for _, writer in slow:
            writer.write(b"GET / HT")
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            asyncio.timeout(1),
            session.get("/quick") as reply,
        ):
            assert reply.status == 200
        await asyncio.gather(*(closed_after(reader) for reader, _ in slow))
        for _, writer in slow:
            writer.close()
