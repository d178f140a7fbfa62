"""What every carrier of the conversation must do, whichever it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Held, ManagerFrame, PilotFrame, Wants
from copilot_agent.protocol.job import Phase
from copilot_agent.protocol.xmpp import XmppAddress
from copilot_agent.transports.base import Transport, TransportError
from copilot_agent.transports.connections import open_session
from copilot_agent.transports.http import SocketTransport
from copilot_agent.transports.memory import MemoryServer, MemoryTransport
from copilot_agent.transports.poll import PollTransport
from copilot_agent.transports.xmpp import XmppTransport
from copilot_agent.transports.xmpp_streams import Streams
from tests.harness.scripted_component import ScriptedComponent
from tests.harness.xmpp import XmppServer
from tests.integration.xmpp.people import pilot_id, token
from tests.unit.copilot_agent.core.scenes import job_id, offer
from tests.unit.copilot_agent.transports.scripted import ScriptedManager

WANTS = Wants(cores=1, memory_mib=1, disk_mib=1)
ATTACH = PilotFrame(wants=WANTS, capabilities=Capabilities(cores=1, memory_mib=1, disk_mib=1))


class ServerEnd(Protocol):
    def say(self, frame: ManagerFrame) -> None: ...
    def hang_up(self, trouble: TransportTrouble = ...) -> None: ...


@dataclass
class Pair:
    transport: Transport
    server: ServerEnd
    received: asyncio.Queue[PilotFrame]
    token: str = "token"

    async def hear(self) -> PilotFrame:
        async with asyncio.timeout(10):
            return await self.received.get()

    async def attach(self) -> AsyncIterator[ManagerFrame]:
        """Up to the first answer; goes on with the frames after it."""
        await self.transport.connect(self.token)
        await self.transport.send(ATTACH)
        self.server.say(answer(1))
        frames = self.transport.frames()
        assert (await anext(frames)).session == 1
        await self.hear()
        return frames


def answer(session: int) -> ManagerFrame:
    return ManagerFrame(session=session, server_time=1.0)


def later(sequence: int, *, jobs: int = 0) -> PilotFrame:
    held = tuple(Held(job=job_id(n), attempt=1, phase=Phase.QUEUED) for n in range(jobs))
    return PilotFrame(session=1, sequence=sequence, wants=WANTS, holding=held)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Pair]:
    server = MemoryServer()
    yield Pair(MemoryTransport(server), server, server.received)


@asynccontextmanager
async def over_http(kind: type[SocketTransport] | type[PollTransport]) -> AsyncIterator[Pair]:
    async with ScriptedManager().running() as manager, open_session() as session:
        transport = kind(session, manager.url)
        yield Pair(transport, manager, manager.received)
        await transport.close()


@dataclass(frozen=True)
class Enrolled:
    pilot: str
    xmpp: XmppAddress


@asynccontextmanager
async def over_xmpp(server: XmppServer) -> AsyncIterator[Pair]:
    """Through a real server."""
    async with ScriptedComponent(server).running() as manager:
        enrolled = Enrolled(pilot_id(), manager.address)
        streams = Streams(server.authority.file.read_text(), None)
        transport = XmppTransport(lambda: enrolled, streams)
        yield Pair(transport, manager, manager.received, token(server, enrolled.pilot))
        await transport.close()


Making = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.fixture(params=["memory", "websocket", "poll", "prosody", "ejabberd"])
def making(request: pytest.FixtureRequest) -> Making:
    match request.param:
        case "memory":
            return in_memory
        case "websocket":
            return lambda: over_http(SocketTransport)
        case "poll":
            return lambda: over_http(PollTransport)
        case name:
            server: XmppServer = request.getfixturevalue(name)
            return lambda: over_xmpp(server)


@pytest.fixture
async def pair(making: Making) -> AsyncIterator[Pair]:
    async with making() as made:
        yield made


async def fails(frames: AsyncIterator[ManagerFrame]) -> TransportTrouble:
    with pytest.raises(TransportError) as caught:
        async with asyncio.timeout(10):
            await anext(frames)
    return caught.value.trouble


async def test_an_attach_is_answered(pair: Pair) -> None:
    await pair.attach()


async def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    await pair.attach()
    sent = [later(number, jobs=number) for number in range(2, 8)]
    for frame in sent:
        await pair.transport.send(frame)
    numbers = []
    while 7 not in numbers:
        heard = await pair.hear()
        numbers.append(heard.sequence)
        assert heard.sequence == 0 or heard == sent[heard.sequence - 2]
    assert [number for number in numbers if number] == [2, 3, 4, 5, 6, 7]


async def test_the_manager_may_speak_at_any_time(pair: Pair) -> None:
    frames = await pair.attach()
    for number in range(5):
        pair.server.say(answer(1).model_copy(update={"offers": (offer(number),)}))
        async with asyncio.timeout(10):
            assert (await anext(frames)).offers[0].job == job_id(number)


async def test_a_frame_of_many_reports_passes(pair: Pair) -> None:
    await pair.attach()
    await pair.transport.send(later(2, jobs=2000))
    while (heard := await pair.hear()).sequence != 2:
        pass
    assert len(heard.holding) == 2000


@pytest.mark.parametrize(
    "trouble",
    [
        TransportTrouble.SUPERSEDED,
        TransportTrouble.TOKEN,
        TransportTrouble.RETIRED,
        TransportTrouble.MALFORMED,
        TransportTrouble.UNREACHABLE,
    ],
)
async def test_the_end_says_why(pair: Pair, trouble: TransportTrouble) -> None:
    frames = await pair.attach()
    pair.server.hang_up(trouble)
    assert await fails(frames) is trouble


async def test_a_wrong_token_is_told_from_other_trouble(pair: Pair) -> None:
    with pytest.raises(TransportError) as caught:
        await pair.transport.connect("forged")
        await pair.transport.send(ATTACH)
        await anext(pair.transport.frames())
    assert caught.value.trouble is TransportTrouble.TOKEN


async def test_after_an_end_the_same_transport_connects_again(pair: Pair) -> None:
    frames = await pair.attach()
    pair.server.hang_up()
    await fails(frames)
    await pair.attach()


async def test_closing_ends_the_frames_quietly(pair: Pair) -> None:
    frames = await pair.attach()
    waiting = asyncio.create_task(collect(frames))
    await asyncio.sleep(0)  # it waits now
    await pair.transport.close()
    async with asyncio.timeout(10):
        assert await waiting == []


async def collect(frames: AsyncIterator[ManagerFrame]) -> list[ManagerFrame]:
    return [frame async for frame in frames]
