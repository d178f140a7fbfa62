"""The `net` channel, both ends: connections, flow control, refusals and new beginnings."""

import asyncio
import hashlib
import socket
import struct
from typing import Any

import pytest

from copilot_agent.host_channel.errors import EgressRefusedError, UnreachableError
from vm_launcher.egress import AllowList, Egress, Entry

SIZE = 30_000_000
BLOCK = bytes(range(256)) * 256


def at(port: int) -> Entry:
    return Entry("127.0.0.1", port)


async def say(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def hear_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    parts = []
    while data := await loop.sock_recv(sock, 65536):
        parts.append(data)
    return b"".join(parts)


async def exchange(pair: Any, port: int, data: bytes) -> bytes:
    with await pair.guest.dial("127.0.0.1", port) as sock:
        await say(sock, data)
        sock.shutdown(socket.SHUT_WR)
        return await hear_all(sock)


async def test_bytes_come_back_from_a_listed_target_and_are_counted(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    assert await exchange(pair, target.port, b"hello") == b"hello"
    snapshot = pair.egress.snapshot()
    assert (snapshot["bytes_in"], snapshot["bytes_out"], snapshot["connections"]) == (5, 5, 1)


async def test_200_connections_one_after_another(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    for number in range(200):
        text = b"number %d" % number
        assert await exchange(pair, target.port, text) == text
    assert target.connections == 200


async def test_8_connections_at_once(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    texts = [b"%d" % number * 100_000 for number in range(8)]
    assert await asyncio.gather(*(exchange(pair, target.port, text) for text in texts)) == texts


async def test_more_connections_than_streams_wait_for_their_turn(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    answers = await asyncio.gather(*(exchange(pair, target.port, b"x") for _ in range(400)))
    assert answers == [b"x"] * 400


async def test_30_megabytes_into_the_guest_arrive_unchanged(pair: Any) -> None:
    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, SIZE, len(BLOCK)):
            writer.write(BLOCK[: SIZE - start])
            await writer.drain()
        writer.write_eof()

    target = await pair.target(give)
    await pair.start(at(target.port))
    received = await exchange(pair, target.port, b"")
    expected = (BLOCK * (SIZE // len(BLOCK) + 1))[:SIZE]
    assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()


async def test_30_megabytes_out_of_the_guest_arrive_unchanged(pair: Any) -> None:
    async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = hashlib.sha256()
        while data := await reader.read(65536):
            total.update(data)
        writer.write(total.digest())

    target = await pair.target(digest)
    await pair.start(at(target.port))
    data = (BLOCK * (SIZE // len(BLOCK) + 1))[:SIZE]
    assert await exchange(pair, target.port, data) == hashlib.sha256(data).digest()
    assert pair.egress.bytes_out == SIZE


async def test_streams_stalled_in_both_directions_hold_up_no_other(pair: Any) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # never reads
            writer.write(BLOCK)
            await writer.drain()

    async def fill(sock: socket.socket) -> None:
        while True:
            await say(sock, BLOCK)

    flooding, echoing = await pair.target(flood), await pair.target()
    await pair.start(at(flooding.port), at(echoing.port))
    stalled = [await pair.guest.dial("127.0.0.1", flooding.port) for _ in range(4)]
    fillers = [asyncio.create_task(fill(sock)) for sock in stalled]
    for _ in range(20):
        assert await exchange(pair, echoing.port, b"free" * 100_000) == b"free" * 100_000
    for filler in fillers:
        filler.cancel()
    await asyncio.wait(fillers)
    for sock in stalled:
        sock.close()


async def test_half_close_reaches_the_target_and_its_answer_the_guest(pair: Any) -> None:
    async def answer_at_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d bytes" % len(await reader.read()))

    target = await pair.target(answer_at_end)
    await pair.start(at(target.port))
    assert await exchange(pair, target.port, b"x" * 70_000) == b"70000 bytes"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "loopback_address"),
        ("::1", "loopback_address"),
        ("10.0.2.2", "private_address"),
        ("192.168.1.1", "private_address"),
        ("169.254.169.254", "link_local_address"),
        ("::ffff:127.0.0.1", "mapped_address"),
        ("example.org", "not_listed"),
        ("2130706433", "malformed"),
        ("a b", "malformed"),
        ("..", "malformed"),
    ],
)
async def test_what_is_not_listed_is_refused_and_counted(pair: Any, host: str, reason: str) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with pytest.raises(EgressRefusedError) as refused:
        await pair.guest.dial(host, target.port + 1 if target.port < 65535 else 1)
    assert refused.value.reason == reason
    assert pair.egress.snapshot()["refused_by_reason"] == {reason: 1}
    assert target.connections == 0


async def test_a_listed_target_that_nobody_serves_is_unreachable(pair: Any) -> None:
    target = await pair.target()
    target.close()
    await pair.start(at(target.port))
    with pytest.raises(UnreachableError) as failed:
        await pair.guest.dial("127.0.0.1", target.port)
    assert failed.value.reason == "econnrefused"


async def test_a_name_that_http_cannot_carry_is_unreachable(pair: Any) -> None:
    await pair.start()
    with pytest.raises(UnreachableError):
        await pair.guest.dial("a\r\nb", 80)
    with pytest.raises(EgressRefusedError):  # the connection is as good as before
        await pair.guest.dial("example.org", 80)


async def test_a_target_that_resets_shows_as_a_reset_not_as_an_end(pair: Any) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    target = await pair.target(reset)
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        await say(sock, b"xy")
        with pytest.raises(ConnectionResetError):
            await hear_all(sock)


async def test_a_guest_that_closes_early_frees_the_target(pair: Any) -> None:
    closed = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(BLOCK)
                await writer.drain()
        finally:
            closed.set()

    target = await pair.target(flood)
    await pair.start(at(target.port))
    sock = await pair.guest.dial("127.0.0.1", target.port)
    await asyncio.get_running_loop().sock_recv(sock, 10)
    sock.close()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_reset_by_the_guest_breaks_its_streams_and_new_ones_work(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        await pair.guest.reset(2)
        with pytest.raises(ConnectionResetError):
            await hear_all(sock)
    assert await exchange(pair, target.port, b"again") == b"again"


async def test_reset_in_the_middle_of_transfers_both_ways(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    for epoch in range(2, 12):
        transfers = [
            asyncio.create_task(exchange(pair, target.port, BLOCK * 100)) for _ in range(3)
        ]
        await pair.moved(1_000_000)
        await pair.guest.reset(epoch)
        results = await asyncio.gather(*transfers, return_exceptions=True)
        assert all(isinstance(one, ConnectionError) for one in results)
        assert await exchange(pair, target.port, b"again") == b"again"


async def test_reset_by_the_launcher_is_noticed_at_once(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        await pair.server.reset(2)
        await say(sock, BLOCK)
        with pytest.raises(ConnectionError):
            await hear_all(sock)
    assert await exchange(pair, target.port, b"again") == b"again"


async def test_dialling_over_a_connection_that_the_launcher_has_forgotten(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    assert await exchange(pair, target.port, b"before") == b"before"
    await pair.server.reset(2)
    async with asyncio.timeout(2):
        assert await exchange(pair, target.port, b"after") == b"after"


async def test_reset_for_the_epoch_that_is_there_changes_nothing(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        await pair.server.reset(1)
        await say(sock, b"x")
        sock.shutdown(socket.SHUT_WR)
        assert await hear_all(sock) == b"x"


async def test_the_launchers_end_goes_and_comes_back(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        await pair.chardev.disconnect()
        with pytest.raises(ConnectionResetError):
            await hear_all(sock)
    assert await exchange(pair, target.port, b"again") == b"again"


async def test_stale_bytes_of_an_earlier_epoch_are_left_out(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    await pair.chardev.arrived.wait()
    await pair.chardev.inject_to_guest(b"\0\0\x10\0stale" * 10_000)
    await pair.chardev.inject(b"half a frame, then another mark:\ncopilot-net/1 ")
    assert await exchange(pair, target.port, b"clear") == b"clear"


async def test_network_off_closes_connections_and_refuses_new_ones(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port))
    with await pair.guest.dial("127.0.0.1", target.port) as sock:
        pair.egress.network_enabled = False
        with pytest.raises(ConnectionResetError):
            await hear_all(sock)
    with pytest.raises(EgressRefusedError, match="network_off"):
        await pair.guest.dial("127.0.0.1", target.port)
    pair.egress.network_enabled = True
    assert await exchange(pair, target.port, b"on") == b"on"


async def test_the_daily_quota_ends_a_transfer_and_refuses_more(pair: Any) -> None:
    target = await pair.target()
    await pair.start(egress=Egress(AllowList([at(target.port)]), bytes_per_day=1_000_000))
    with pytest.raises(ConnectionError):
        await exchange(pair, target.port, BLOCK * 40)
    with pytest.raises(EgressRefusedError, match="quota"):
        await pair.guest.dial("127.0.0.1", target.port)
    assert pair.egress.snapshot()["bytes_today"] < 1_200_000


async def test_the_rate_limit_holds(pair: Any) -> None:
    target = await pair.target()
    await pair.start(egress=Egress(AllowList([at(target.port)]), bytes_per_second=1_000_000))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    data = b"x" * 1_000_000  # 2 MB both ways, the first of which is the burst
    assert await exchange(pair, target.port, data) == data
    assert 0.8 < loop.time() - begun < 5


async def test_an_idle_connection_is_closed(pair: Any) -> None:
    target = await pair.target()
    await pair.start(at(target.port), idle=0.2)
    sock = await pair.guest.dial("127.0.0.1", target.port)
    with sock, pytest.raises(ConnectionResetError):
        await asyncio.wait_for(hear_all(sock), 5)
