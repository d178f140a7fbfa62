"""A manager's component for the agent's own tests: says what the test says, ends on order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.protocol.xmpp import (
    FRAME,
    Assembler,
    XmppAddress,
    add_piece,
    end_element,
    pieces,
)
from copilot_agent.xmpp.component import ComponentLogin, ComponentStream
from copilot_agent.xmpp.guard import Limits
from tests.harness.xmpp import DOMAIN, MANAGERS, XmppServer

CLIENT = "{jabber:client}"
ENDS = {
    TransportTrouble.SUPERSEDED: ErrorCode.SESSION_SUPERSEDED,
    TransportTrouble.TOKEN: ErrorCode.TOKEN_EXPIRED,
    TransportTrouble.RETIRED: ErrorCode.PILOT_RETIRED,
    TransportTrouble.MALFORMED: ErrorCode.INVALID_REQUEST,
    TransportTrouble.UNREACHABLE: ErrorCode.UNAVAILABLE,
}


class ScriptedComponent:
    """Of one pilot; what is said before it attaches waits for it."""

    def __init__(self, server: XmppServer, name: str = MANAGERS[0]) -> None:
        login = ComponentLogin(name, server.secret, "127.0.0.1", server.component_port)
        self.stream = ComponentStream(login, Limits(stanza_bytes=1 << 20))
        self.address = XmppAddress(
            server=f"127.0.0.1:{server.c2s_port}", domain=DOMAIN, component=name
        )
        self.received: asyncio.Queue[PilotFrame] = asyncio.Queue()
        self.answered: asyncio.Queue[str] = asyncio.Queue()
        """Ids of our IQs that the pilot has answered."""
        self._name = name
        self._outbox: asyncio.Queue[ManagerFrame | TransportTrouble] = asyncio.Queue()
        self._assembler = Assembler()
        self._pilot = self._attach = ""
        self._attached = asyncio.Event()
        self._count = 0

    def say(self, frame: ManagerFrame) -> None:
        self._outbox.put_nowait(frame)

    def hang_up(self, trouble: TransportTrouble = TransportTrouble.UNREACHABLE) -> None:
        self._outbox.put_nowait(trouble)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedComponent"]:
        await self.stream.open()
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._speak())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.stream.close()

    async def _listen(self) -> None:
        async for stanza in self.stream.stanzas():
            if stanza.tag != CLIENT + "iq":
                continue
            self._pilot = stanza.get("from", "")
            if stanza.get("type") != "set":
                self.answered.put_nowait(stanza.get("id", ""))
                continue
            await self.stream.send(self._iq("result", stanza.get("id", "")))
            piece = stanza.find(FRAME)
            assert piece is not None
            if (text := self._assembler.add(piece)) is not None:
                self._heard(stanza.get("id", ""), PilotFrame.model_validate_json(text))

    def _heard(self, number: str, frame: PilotFrame) -> None:
        if frame.session is None:
            self._attach = number
            self._attached.set()
        self.received.put_nowait(frame)

    async def _speak(self) -> None:
        while True:
            item = await self._outbox.get()
            await self._attached.wait()
            if isinstance(item, ManagerFrame):
                for part, more in pieces(item.model_dump_json()):
                    await self.stream.send(add_piece(self._next(), part, more, self._attach))
                continue
            self._attached.clear()
            iq = self._next()
            iq.append(end_element(ENDS[item], "the test says so", self._attach))
            await self.stream.send(iq)

    def _next(self) -> Element:
        self._count += 1
        return self._iq("set", f"m{self._count}")

    def _iq(self, kind: str, number: str) -> Element:
        attributes = {"type": kind, "from": self._name, "to": self._pilot, "id": number}
        return Element(CLIENT + "iq", attributes)

    async def stranger(self, kind: str, child: str) -> None:
        """An IQ that no manager of ours would send."""
        iq = self._iq(kind, "strange")
        SubElement(iq, child)
        await self.stream.send(iq)
