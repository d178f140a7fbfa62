"""The manager's end of the simulated XMPP server: the real component, and who listens to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from xml.etree.ElementTree import Element, tostring

from copilot_agent.protocol.frames import PilotFrame
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.transports.xmpp.component import PilotComponent
from job_manager_adapter.transports.xmpp.door import XmppDoor
from tests.simulation.loop import Machine
from tests.simulation.xmpp_server import ADDRESS, LOOPBACK_SECONDS, XmppServer

Heard = Callable[[str, PilotFrame], None]


class ComponentStream:
    """Of one manager process."""

    def __init__(self, machine: Machine, server: XmppServer) -> None:
        self._machine = machine
        self._server = server
        self._inbox: asyncio.Queue[Element | XmppError | None] = asyncio.Queue()
        self._trouble: XmppError | None = XmppError(XmppTrouble.UNREACHABLE, "not connected")

    async def open(self) -> None:
        self._inbox = asyncio.Queue()
        joined: asyncio.Future[list[XmppError | None]] = self._machine.loop.create_future()
        self._later(lambda: self._machine.answer(joined, [self._server.join(self)]))
        (self._trouble,) = await joined
        if self._trouble is not None:
            raise self._trouble

    def _later(self, action: Callable[[], object]) -> None:
        self._machine.universe.after(LOOPBACK_SECONDS, action)

    async def send_text(self, stanza: str) -> None:
        if self._trouble is not None:
            raise self._trouble
        self._later(lambda: self._server.from_component(self, stanza))

    async def send(self, stanza: Element) -> None:
        await self.send_text(tostring(stanza, "unicode"))

    async def stanzas(self) -> AsyncIterator[Element]:
        while (item := await self._inbox.get()) is not None:
            if isinstance(item, XmppError):
                raise item
            yield item

    async def close(self) -> None:
        self.lost(XmppError(XmppTrouble.UNREACHABLE, "closed"))
        self.died()

    def died(self) -> None:
        """What was written before still comes to the server."""
        self._later(lambda: self._server.left(self))

    # ----- by the server

    def take(self, stanza: Element) -> None:
        self._machine.tell(self._inbox, stanza)

    def lost(self, error: XmppError) -> None:
        if self._trouble is None:
            self._trouble = error
            self._machine.tell(self._inbox, error)


class OverheardSession:
    """A `PilotSession` that tells of each frame that it took."""

    def __init__(self, session: PilotSession, heard: Heard) -> None:
        self._session = session
        self._heard = heard

    def receive(self, frame: PilotFrame) -> None:
        self._session.receive(frame)
        self._heard(self._session.pilot, frame)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class OverheardPilots:
    def __init__(self, pilots: Pilots, heard: Heard) -> None:
        self._pilots = pilots
        self._heard = heard

    async def attach(self, pilot: str, carrier: Any) -> OverheardSession:
        return OverheardSession(await self._pilots.attach(pilot, carrier), self._heard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pilots, name)


def build_component(stream: ComponentStream, pilots: Pilots, heard: Heard) -> PilotComponent:
    overheard: Any = OverheardPilots(pilots, heard)
    door = XmppDoor(overheard, lambda _: None)
    return PilotComponent(stream, ADDRESS.component, ADDRESS.domain, door)
