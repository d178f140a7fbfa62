"""A component's stream that a test writes by hand, and pilots on it."""

import asyncio
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element, fromstring

from copilot_agent.protocol.frames import PilotFrame
from copilot_agent.protocol.xmpp import add_piece, pieces
from copilot_agent.xmpp.errors import XmppError
from job_manager_adapter.transports.xmpp.component import PilotComponent
from job_manager_adapter.transports.xmpp.door import XmppDoor
from tests.unit.job_manager_adapter.services.world import FakePilot, World

NAME, DOMAIN = "manager-1.test", "pilots.test"
CLIENT = "{jabber:client}"


class Stream:
    def __init__(self) -> None:
        self.coming: asyncio.Queue[Element | XmppError] = asyncio.Queue()
        self.sent: asyncio.Queue[Element] = asyncio.Queue()
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1

    async def send(self, stanza: Element) -> None:
        raise NotImplementedError

    async def send_text(self, stanza: str) -> None:
        whole = stanza.replace("<iq ", "<iq xmlns='jabber:client' ", 1)
        self.sent.put_nowait(fromstring(whole))  # noqa: S314 - our own

    async def stanzas(self) -> AsyncIterator[Element]:
        while True:
            item = await self.coming.get()
            if isinstance(item, XmppError):
                raise item
            yield item

    async def close(self) -> None: ...


class Setting:
    def __init__(self, world: World) -> None:
        self.world = world
        self.stream = Stream()
        self.counted: list[str] = []
        door = XmppDoor(world.services.pilots, self.counted.append)
        self.component = PilotComponent(self.stream, NAME, DOMAIN, door)

    async def pilot(self) -> "XmppPilot":
        (enrolment,) = await self.world.services.enrolments.create()
        pilot = FakePilot(self.world, enrolment.secret or "")
        await pilot.enrol()
        return XmppPilot(self.stream, pilot)

    def bring(self, iq: Element) -> None:
        self.stream.coming.put_nowait(iq)

    async def next(self) -> Element:
        return await asyncio.wait_for(self.stream.sent.get(), 10)


class XmppPilot:
    def __init__(self, stream: Stream, inner: FakePilot) -> None:
        self.inner = inner
        self.jid = f"{inner.id}@{DOMAIN}/pilot"
        self._stream = stream

    def iq(self, kind: str, number: str) -> Element:
        attributes = {"type": kind, "id": number, "from": self.jid, "to": NAME}
        return Element(CLIENT + "iq", attributes)

    def say(self, number: str, text: str) -> None:
        parts = list(pieces(text))
        for count, (part, more) in enumerate(parts):
            name = number if not more else f"{number}.{count}"
            self._stream.coming.put_nowait(add_piece(self.iq("set", name), part, more))

    def attach(self, number: str = "1") -> None:
        self.say(number, PilotFrame(wants=self.inner.wants).model_dump_json())

    def go_on(self, number: str, session: int) -> None:
        frame = PilotFrame(session=session, sequence=1, wants=self.inner.wants)
        self.say(number, frame.model_dump_json())

    def answer(self, pushed: Element, kind: str = "result") -> None:
        self._stream.coming.put_nowait(self.iq(kind, pushed.get("id", "")))
