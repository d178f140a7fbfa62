"""A guest that breaks HTTP/2 on purpose costs the launcher little and itself its connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from hyperframe.frame import PingFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.channel import mark
from vm_launcher.channels import NetServer, net
from vm_launcher.channels.streams import GuestProtocolError, Streams
from vm_launcher.egress import AllowList, Egress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def preface() -> bytes:
    return PREFACE + bytes(SettingsFrame(0).serialize())


frames = st.tuples(
    st.integers(0, 12), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=60)
).map(
    lambda one: (
        len(one[3]).to_bytes(3, "big")
        + bytes([one[0], one[1]])
        + one[2].to_bytes(4, "big")
        + one[3]
    )
)


@given(st.lists(st.one_of(frames, st.binary(max_size=60)), max_size=20))
def test_any_bytes_are_digested_or_called_a_protocol_error(parts: list[bytes]) -> None:
    async def feed() -> None:
        streams = Streams(Egress(AllowList([])), lambda data: None, lambda: False)
        streams.start()
        streams.receive(preface())
        try:
            for part in parts:
                streams.receive(part)
                await asyncio.sleep(0)  # the streams' own tasks have their turn
        except GuestProtocolError:
            pass
        streams.close()

    asyncio.run(feed())


class RawGuest:
    """Speaks to a NetServer as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.h2 = _client()

    async def begin(self, nonce: bytes) -> None:
        self.writer.write(mark(1, nonce))
        await self._reader.readuntil(mark(1, nonce))
        self.h2 = _client()
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(self) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [(":method", "CONNECT"), (":authority", "example.org:80")])
        return number

    def request_now(self) -> int:
        number = self.request()
        self.flush()
        return number

    async def answer(self, number: int) -> dict[bytes, bytes]:
        """The launcher's response headers to request `number`."""
        while data := await self._reader.read(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == number:
                    return dict(event.headers)
        raise AssertionError("the launcher left")


def _client() -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=True, header_encoding=None)
    return h2.connection.H2Connection(config)


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[RawGuest]]]:
    arrived: asyncio.Queue[RawGuest] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(RawGuest(reader, writer))

    chardev = await asyncio.start_unix_server(serve, tmp_path / "net", limit=1 << 24)
    server = NetServer(tmp_path / "net", Egress(AllowList([])))
    await server.start()
    guests: list[RawGuest] = []

    async def first() -> RawGuest:
        guests.append(await arrived.get())
        return guests[-1]

    yield first
    await server.close()
    for guest in guests:
        guest.writer.transport.abort()
    chardev.close()


async def send_for(guest: RawGuest, data: bytes, seconds: float) -> int:
    """How many bytes the launcher took meanwhile."""
    taken = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                guest.writer.write(data)
                await guest.writer.drain()
                taken += len(data)
    except TimeoutError:
        return taken


async def test_nonsense_ends_the_connection_and_a_new_one_works(
    connect: Callable[[], Awaitable[RawGuest]],
) -> None:
    guest = await connect()
    for number in range(3):
        await guest.begin(bytes([number] * 16))
        guest.writer.write(b"\xff" * 5000)
    await guest.begin(b"x" * 16)
    async with asyncio.timeout(5):
        answer = await guest.answer(guest.request_now())
        assert answer[b"copilot-refused"] == b"not_listed"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest may cause 2000 events a second, and as many in advance."""
    monkeypatch.setattr(net, "_EVENTS_PER_SECOND", 2000)
    monkeypatch.setattr(net, "_BURST_EVENTS", 2000)


@pytest.mark.parametrize(
    "frame", [PingFrame(0, b"12345678"), SettingsFrame(0, {4: 65535})], ids=["ping", "settings"]
)
async def test_after_a_flood_of_small_frames_the_guest_has_to_wait(
    slow: None, connect: Callable[[], Awaitable[RawGuest]], frame: PingFrame | SettingsFrame
) -> None:
    guest = await connect()
    await guest.begin(b"x" * 16)
    guest.writer.write(frame.serialize() * 4000)
    await guest.answer(guest.request_now())
    begun = asyncio.get_running_loop().time()
    await guest.answer(guest.request_now())
    assert asyncio.get_running_loop().time() - begun > 0.3


async def test_garbage_is_read_slowly(connect: Callable[[], Awaitable[RawGuest]]) -> None:
    guest = await connect()
    await guest.begin(b"x" * 16)
    assert await send_for(guest, b"x" * 65536, 1.5) < 40_000_000


async def test_requests_taken_back_at_once_are_bounded(
    connect: Callable[[], Awaitable[RawGuest]],
) -> None:
    guest = await connect()
    await guest.begin(b"x" * 16)
    for _ in range(3000):
        guest.h2.reset_stream(guest.request())
    number = guest.request()
    guest.flush()
    async with asyncio.timeout(10):
        assert (await guest.answer(number))[b"copilot-refused"] == b"too_fast"
