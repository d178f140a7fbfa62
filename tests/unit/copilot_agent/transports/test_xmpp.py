"""The agent's end of XMPP, with a stream that a test writes by hand."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

import pytest

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import PilotFrame, Wants
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.xmpp import XmppAddress, add_piece, end_element
from copilot_agent.transports import xmpp
from copilot_agent.transports.base import NotOfferedError, TransportError
from copilot_agent.transports.xmpp import XmppTransport
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from tests.contract.test_transports import answer

MANAGER = "manager-1.test"
ADDRESS = XmppAddress(server="127.0.0.1:5222", domain="pilots.test", component=MANAGER)
CLIENT = "{jabber:client}"
ATTACH = PilotFrame(wants=Wants(cores=1, memory_mib=1, disk_mib=1))


@dataclass
class Enrolled:
    pilot: str = make_id("p", 0, 1)
    xmpp: XmppAddress | None = ADDRESS


class Stream:
    def __init__(self) -> None:
        self.sent: list[Element] = []
        self.refusal: XmppError | None = None
        self._coming: asyncio.Queue[Element | None] = asyncio.Queue()

    async def open(self) -> None:
        self._coming = asyncio.Queue()
        if self.refusal is not None:
            raise self.refusal

    async def send(self, stanza: Element) -> None:
        self.sent.append(stanza)

    async def stanzas(self) -> AsyncIterator[Element]:
        while (stanza := await self._coming.get()) is not None:
            yield stanza

    async def close(self) -> None:
        self._coming.put_nowait(None)

    def bring(self, iq: Element) -> None:
        self._coming.put_nowait(iq)


def iq(kind: str, number: str, sender: str = MANAGER) -> Element:
    return Element(CLIENT + "iq", {"type": kind, "id": number, "from": sender})


def said(kind: str, number: str, session: int, attach: str) -> Element:
    return add_piece(iq(kind, number), answer(session).model_dump_json(), False, attach)


class Talk:
    def __init__(self, stream: Stream, transport: XmppTransport) -> None:
        self.stream = stream
        self.transport = transport

    async def attach(self) -> str:
        """The id of the IQ that did."""
        await self.transport.connect("token")
        await self.transport.send(ATTACH)
        return self.stream.sent[-1].get("id", "")

    async def next(self) -> int:
        async with asyncio.timeout(5):
            return (await anext(self.transport.frames())).session

    async def trouble(self) -> TransportTrouble:
        with pytest.raises(TransportError) as caught:
            await self.next()
        return caught.value.trouble


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    stream, enrolled = Stream(), Enrolled()
    transport = XmppTransport(lambda: enrolled, lambda *_: stream)
    yield Talk(stream, transport)
    await transport.close()


async def test_without_an_address_it_is_not_offered() -> None:
    accounts = iter((None, Enrolled(xmpp=None)))
    transport = XmppTransport(lambda: next(accounts), lambda *_: Stream())
    for _ in range(2):
        with pytest.raises(NotOfferedError):
            await transport.connect("token")


@pytest.mark.parametrize(
    ("trouble", "wanted"),
    [
        (XmppTrouble.LOGIN, TransportTrouble.TOKEN),
        (XmppTrouble.CONFLICT, TransportTrouble.SUPERSEDED),
        (XmppTrouble.TLS, TransportTrouble.UNREACHABLE),
    ],
)
async def test_a_refused_stream_says_why(
    talk: Talk, trouble: XmppTrouble, wanted: TransportTrouble
) -> None:
    talk.stream.refusal = XmppError(trouble, "no")
    with pytest.raises(TransportError) as caught:
        await talk.transport.connect("token")
    assert caught.value.trouble is wanted


async def test_an_answer_and_a_push_are_heard_and_the_push_is_answered(talk: Talk) -> None:
    number = await talk.attach()
    talk.stream.bring(said("result", number, 5, number))
    talk.stream.bring(said("set", "m1", 6, number))
    assert [await talk.next(), await talk.next()] == [5, 6]
    assert dict(talk.stream.sent[-1].attrib) == {"type": "result", "to": MANAGER, "id": "m1"}


async def test_what_was_said_before_this_connection_is_dropped(talk: Talk) -> None:
    old = await talk.attach()
    number = await talk.attach()
    assert old != number
    talk.stream.bring(said("set", "m1", 5, old))
    end = iq("set", "m2")
    end.append(end_element(ErrorCode.SESSION_SUPERSEDED, "long ago", old))
    talk.stream.bring(end)
    talk.stream.bring(said("result", number, 7, number))
    assert await talk.next() == 7


async def test_strangers_are_sent_away(talk: Talk) -> None:
    number = await talk.attach()
    talk.stream.bring(said("set", "m1", 9, number))
    talk.stream.bring(
        add_piece(iq("set", "x", "other.test"), answer(8).model_dump_json(), False, number)
    )
    talk.stream.bring(iq("get", "y"))
    talk.stream.bring(said("result", number, 5, number))
    assert [await talk.next(), await talk.next()] == [9, 5]
    refused = [each.get("id") for each in talk.stream.sent if each.get("type") == "error"]
    assert refused == ["x", "y"]


async def test_an_answer_that_does_not_come_ends_the_connection(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xmpp, "ANSWER_SECONDS", 0.05)
    await talk.attach()
    assert await talk.trouble() is TransportTrouble.UNREACHABLE


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (ErrorCode.SESSION_SUPERSEDED, TransportTrouble.SUPERSEDED),
        (ErrorCode.TOKEN_EXPIRED, TransportTrouble.TOKEN),
        (ErrorCode.HOST_BANNED, TransportTrouble.RETIRED),
        (ErrorCode.INVALID_REQUEST, TransportTrouble.MALFORMED),
        (ErrorCode.UNAVAILABLE, TransportTrouble.UNREACHABLE),
    ],
)
async def test_the_managers_refusal_says_why(
    talk: Talk, code: ErrorCode, trouble: TransportTrouble
) -> None:
    number = await talk.attach()
    refusal = iq("error", number)
    SubElement(refusal, CLIENT + "error").append(end_element(code, "no"))
    talk.stream.bring(refusal)
    assert await talk.trouble() is trouble


async def test_the_servers_refusal_means_that_the_manager_is_away(talk: Talk) -> None:
    number = await talk.attach()
    refusal = iq("error", number)
    error = SubElement(refusal, CLIENT + "error")
    SubElement(error, "{urn:ietf:params:xml:ns:xmpp-stanzas}remote-server-not-found")
    talk.stream.bring(refusal)
    with pytest.raises(TransportError, match="remote-server-not-found"):
        await talk.next()


@pytest.mark.parametrize("text", ["{", '{"session":"x"}', "x" * 20_000])
async def test_rubbish_from_the_manager_is_malformed(talk: Talk, text: str) -> None:
    number = await talk.attach()
    talk.stream.bring(add_piece(iq("set", "m1"), text, False, number))
    assert await talk.trouble() is TransportTrouble.MALFORMED
