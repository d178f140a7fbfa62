"""The agent's streams over the simulated XMPP server: what copilot_agent/xmpp has of slixmpp."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from xml.etree.ElementTree import Element, tostring

from copilot_agent.protocol.xmpp import FRAME, Assembler, XmppAddress
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.stream import CLOSE_SECONDS, OPEN_SECONDS
from tests.simulation.loop import Machine
from tests.simulation.wire import UP, Line
from tests.simulation.xmpp_server import (
    Acknowledged,
    Bound,
    Closed,
    Down,
    Login,
    Resumed,
    Said,
    XmppServer,
)

Told = Callable[[str], None]


class ClientStream:
    """A `StanzaStream` of one agent process; what broke is gone on with, as in xmpp/client.py."""

    def __init__(
        self, machine: Machine, line: Line, server: XmppServer, pilot: str, heard: Told, said: Told
    ) -> None:
        self._machine = machine
        self._line = line
        self._server = server
        self._pilot = pilot
        self._heard = heard
        self._said = said
        self._password = ""
        self._login: Login | None = None
        self._trouble: XmppError | None = None
        self._live = False
        self._forget()
        self._renew()

    def _forget(self) -> None:
        """Nothing is left to be resumed."""
        self._previous = ""
        self._handled = self._confirmed = 0
        self._sent: deque[str] = deque()
        """All that the server has not confirmed to have."""
        self._coming: dict[str, Assembler] = defaultdict(Assembler)
        self._going = Assembler()

    def _renew(self) -> None:
        self._inbox: asyncio.Queue[Element | XmppError | None] = asyncio.Queue()
        self._opened: asyncio.Future[None] = self._machine.loop.create_future()
        self._closed: asyncio.Future[None] = self._machine.loop.create_future()
        self._trouble, self._live = None, False

    def use_password(self, password: str) -> None:
        self._password = password

    # ----- what the agent does

    async def open(self) -> None:
        self._renew()
        login = self._login = Login(
            self._pilot, self._password, self._previous, self._handled, self._line, self._arrives
        )
        self._line.pass_on(UP, lambda: self._server.log_in(login))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._opened
            if self._trouble is not None:
                raise self._trouble
        except TimeoutError:
            self._hang_up()
            raise _unreachable("the XMPP server does not answer") from None
        except BaseException:
            self._hang_up()
            raise

    async def send(self, stanza: Element) -> None:
        login = self._login
        if not self._live or login is None or login.connection is None:
            raise self._trouble or _unreachable("not connected")
        text = tostring(stanza, "unicode")
        self._sent.append(text)
        login.connection.up.send(Said(text))
        piece = stanza.find(FRAME)
        frame = None if piece is None else self._going.add(piece)
        if frame is not None:
            self._said(frame)

    async def stanzas(self) -> AsyncIterator[Element]:
        while (item := await self._inbox.get()) is not None:
            if isinstance(item, XmppError):
                raise item
            yield item

    async def close(self) -> None:
        live, login = self._live, self._login
        self._inbox.put_nowait(None)
        self._fail(_unreachable("the XMPP stream was closed"))
        if live and login is not None and login.connection is not None:
            self._forget()
            login.connection.up.send(Closed())
            await asyncio.wait([self._closed], timeout=CLOSE_SECONDS)
        self._hang_up()

    def died(self) -> None:
        """The process is gone; its system closes what it had open."""
        self._hang_up()

    def _hang_up(self) -> None:
        login, self._login = self._login, None
        if login is not None:
            login.gone = True
            if login.connection is not None:
                login.connection.up.send(None)

    # ----- what comes

    def _arrives(self, login: Login, item: Down) -> None:
        """At the computer: the process takes it when it runs."""
        if login.gone or not self._machine.alive:
            return
        if isinstance(item, Element) and (piece := item.find(FRAME)) is not None:
            frame = self._coming[piece.get("attach", "")].add(piece)
            if frame is not None:
                self._heard(frame)
        self._machine.call(self._came, login, item)

    def _came(self, login: Login, item: Down) -> None:
        if login is not self._login:
            return
        match item:
            case Bound():
                self._forget()
                self._previous = item.token
                self._start()
            case Resumed():
                self._go_on(login, item.handled)
            case XmppError():
                self._fail(item)
            case None:
                self._fail(_unreachable("the XMPP stream ended"))
                self._hang_up()
                if not self._closed.done():
                    self._closed.set_result(None)
            case _:
                self._take(login, item)

    def _take(self, login: Login, stanza: Element) -> None:
        self._handled += 1
        if login.connection is not None:
            login.connection.up.send(Acknowledged(self._handled))
        if self._live:
            self._inbox.put_nowait(stanza)

    def _go_on(self, login: Login, handled: int) -> None:
        while self._confirmed < handled:
            self._sent.popleft()
            self._confirmed += 1
        if login.connection is not None:
            for text in self._sent:
                login.connection.up.send(Said(text))
        self._start()

    def _start(self) -> None:
        self._live = True
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail(self, error: XmppError) -> None:
        """The first reason counts."""
        self._live = False
        if self._trouble is None:
            self._trouble = error
            self._inbox.put_nowait(error)
            if not self._opened.done():
                self._opened.set_result(None)


class AgentStreams:
    """Of one agent process; as transports/xmpp_streams.py."""

    def __init__(
        self, machine: Machine, line: Line, server: XmppServer, heard: Told, said: Told
    ) -> None:
        self._around = (machine, line, server)
        self._told = (heard, said)
        self._kept: tuple[str, ClientStream] | None = None

    def __call__(self, pilot: str, address: XmppAddress, token: str) -> Any:
        if self._kept is None or self._kept[0] != pilot:
            self._kept = pilot, ClientStream(*self._around, pilot, *self._told)
        stream = self._kept[1]
        stream.use_password(token)
        return stream

    def died(self) -> None:
        if self._kept is not None:
            self._kept[1].died()


def _unreachable(message: str) -> XmppError:
    return XmppError(XmppTrouble.UNREACHABLE, message)
