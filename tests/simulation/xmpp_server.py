"""A simulated XMPP server between pilots and the manager, as `deploy` configures real ones.

A stream keeps its order; stanzas come once, or not at all where the stream breaks. With stream
management (XEP-0198) a stream that broke is kept for five minutes: what comes meanwhile waits, and
a client that resumes gets what it has not counted, and sends again what the server has not. What
cannot be delivered any more goes back to its sender as an error, also when the client had it and
only its acknowledgement is missing. One account has one stream: a newer login ends the older with
`conflict`. The manager's component has none of this; it is on the same computer as the server.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from xml.etree.ElementTree import Element, SubElement, fromstring

from copilot_agent.protocol.xmpp import FRAME, RESOURCE, XmppAddress
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from tests.simulation.loop import Clock, Universe
from tests.simulation.wire import DOWN, UP, Line, Pipe

ADDRESS = XmppAddress(server="xmpp.test:5222", domain="pilots.test", component="manager.test")
LOOPBACK_SECONDS = 0.0003
KEPT_SECONDS = 300.0
NOTICES_SECONDS = 15.0, 180.0
"""A server without an answer from a client's computer gives its connection up after these."""
CLIENT = "{jabber:client}"
HEADS = '{"version"', '{"session"'
"""How frames begin."""
_CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


@dataclass(frozen=True)
class Bound:
    """A new stream, and the name by which it may be resumed."""

    token: str


@dataclass(frozen=True)
class Resumed:
    """`handled`: stanzas of the client's, since the stream was new."""

    handled: int


@dataclass(frozen=True)
class Acknowledged:
    """By the client."""

    handled: int


@dataclass(frozen=True)
class Said:
    """A client's stanza."""

    text: str


class Closed:
    """The closing tag: the stream is not to be resumed."""


Up = Said | Acknowledged | Closed | None
Down = Bound | Resumed | Element | XmppError | None
"""What the directions of a connection carry; None is its end."""


class Connection:
    """A client's TCP connection; the client pings nobody, so it never gives up by itself."""

    def __init__(self, line: Line, server: Callable[[Up], None], client: Callable[[Down], None]):
        self.up = Pipe(line, UP, server, NOTICES_SECONDS)
        self.down = Pipe(line, DOWN, client, None)


@dataclass(eq=False)
class Login:
    """One attempt of a client's; the server knows of it what the client says."""

    pilot: str
    token: str
    previous: str
    """The stream to resume."""
    handled: int
    line: Line
    came: Callable[["Login", Down], None]
    connection: Connection | None = None
    gone: bool = False
    """The client has given it up, or closed it."""

    @property
    def jid(self) -> str:
        return f"{self.pilot}@{ADDRESS.domain}/{RESOURCE}"


class Component(Protocol):
    """The manager's end."""

    def take(self, stanza: Element) -> None: ...

    def lost(self, error: XmppError) -> None: ...


class Session:
    def __init__(self, jid: str, token: str) -> None:
        self.jid = jid
        self.token = token
        self.connection: Connection | None = None
        self.waiting: deque[Element] = deque()
        """Not acknowledged by the client."""
        self.latest: Element | None = None
        """The last one that was."""
        self.heard: Element | None = None
        """The last one that the client sent."""
        self.acknowledged = self.handled = self.told = 0
        self.naps = 0


class XmppServer:
    """`clock` is the one of the manager's computer."""

    def __init__(self, universe: Universe, clock: Clock) -> None:
        self._universe = universe
        self._clock = clock
        self._component: Component | None = None
        self._sessions: dict[str, Session] = {}
        self._streams = 0
        self._up = True

    def crash(self) -> None:
        """Nothing is kept; its system closes the connections."""
        self._up = False
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            self._hang_up(session)
        component, self._component = self._component, None
        if component is not None:
            ended = XmppError(XmppTrouble.UNREACHABLE, "the XMPP stream ended")
            self._universe.after(LOOPBACK_SECONDS, component.lost, ended)

    def start(self) -> None:
        self._up = True

    # ----- the manager's component

    def join(self, component: Component) -> XmppError | None:
        """A newer one replaces the older."""
        if not self._up:
            return XmppError(XmppTrouble.UNREACHABLE, "the XMPP server is not reachable")
        if self._component is not None:
            self._component.lost(XmppError(XmppTrouble.CONFLICT, "replaced"))
        self._component = component
        return None

    def left(self, component: Component) -> None:
        if self._component is component:
            self._component = None

    def from_component(self, component: Component, text: str) -> None:
        if component is not self._component:
            return
        stanza = fromstring(f"<s xmlns='jabber:client'>{text}</s>")[0]  # noqa: S314 - ours
        session = self._sessions.get(stanza.get("to", ""))
        if session is not None:
            self._deliver(session, stanza)
        elif stanza.get("type") in ("set", "get"):
            self._bounce(stanza, "service-unavailable")

    def _hand_over(self, stanza: Element) -> None:
        if self._component is not None:
            self._universe.after(LOOPBACK_SECONDS, self._component.take, stanza)

    def _bounce(self, stanza: Element, condition: str) -> None:
        if stanza.get("type") != "error":
            self._hand_over(_error(stanza, condition))

    # ----- pilots come

    def log_in(self, login: Login) -> None:
        """Takes several round trips, so it comes to nothing if the client is gone meanwhile."""
        if login.gone:
            return
        if not self._up:
            self._refuse(login, XmppTrouble.UNREACHABLE)
        elif not self._let_in(login):
            self._refuse(login, XmppTrouble.LOGIN)
        else:
            self._welcome(login)

    def _refuse(self, login: Login, trouble: XmppTrouble) -> None:
        error = XmppError(trouble, "the XMPP server refuses")
        login.line.pass_on(DOWN, lambda: login.came(login, error))

    def _let_in(self, login: Login) -> bool:
        pilot, _, expires = login.token.partition(".")
        return pilot == login.pilot and float(expires) > self._clock.time()

    def _welcome(self, login: Login) -> None:
        session = self._sessions.get(login.jid)
        if session is None or session.token != login.previous:
            self._bind(login, session)
        else:
            self._resume(login, session)

    def _connect(self, login: Login, session: Session) -> Connection:
        connection = login.connection = session.connection = Connection(
            login.line,
            lambda item: self._came(session, connection, item),
            lambda item: login.came(login, item),
        )
        session.naps += 1
        return connection

    def _bind(self, login: Login, older: Session | None) -> None:
        if older is not None:
            self._end(older, XmppError(XmppTrouble.CONFLICT, "the XMPP server ended the stream"))
        self._streams += 1
        session = self._sessions[login.jid] = Session(login.jid, f"stream-{self._streams}")
        self._connect(login, session).down.send(Bound(session.token))

    def _resume(self, login: Login, session: Session) -> None:
        self._hang_up(session)
        self._acknowledge(session, login.handled)
        self._miscount(login.line, session)
        session.told = session.handled
        connection = self._connect(login, session)
        connection.down.send(Resumed(session.handled))
        for stanza in session.waiting:
            connection.down.send(stanza)

    def _miscount(self, line: Line, session: Session) -> None:
        """While the line doubles: the last one of each direction comes again."""
        if self._universe.random.random() >= line.twice:
            return
        if _whole(session.heard):
            session.handled = max(session.told, session.handled - 1)
        if session.latest is not None and _whole(session.latest):
            session.waiting.appendleft(session.latest)

    # ----- pilots talk

    def _came(self, session: Session, connection: Connection, item: Up) -> None:
        if session.connection is not connection:
            return
        match item:
            case Said():
                session.handled += 1
                self._route(session, fromstring(item.text))  # noqa: S314 - ours
            case Acknowledged():
                self._acknowledge(session, item.handled)
            case Closed():
                self._end(session)
            case None:
                self._hang_up(session)
                session.naps += 1
                self._universe.after(KEPT_SECONDS, self._overslept, session, session.naps)

    def _acknowledge(self, session: Session, handled: int) -> None:
        while session.acknowledged < handled:
            session.latest = session.waiting.popleft()
            session.acknowledged += 1

    def _route(self, session: Session, stanza: Element) -> None:
        if stanza.get("to") != ADDRESS.component:
            raise AssertionError(f"a pilot addresses {stanza.get('to')}")
        stanza.set("from", session.jid)
        session.heard = stanza
        if self._component is not None:
            self._hand_over(stanza)
        elif stanza.get("type") in ("set", "get"):
            self._deliver(session, _error(stanza, "remote-server-timeout"))

    def _deliver(self, session: Session, stanza: Element) -> None:
        session.waiting.append(stanza)
        if session.connection is not None:
            session.connection.down.send(stanza)

    # ----- pilots go

    def _hang_up(self, session: Session) -> None:
        connection, session.connection = session.connection, None
        if connection is not None:
            connection.down.send(None)

    def _overslept(self, session: Session, nap: int) -> None:
        if session.naps == nap and self._sessions.get(session.jid) is session:
            self._end(session)

    def _end(self, session: Session, error: XmppError | None = None) -> None:
        """For good: what was not acknowledged goes back."""
        del self._sessions[session.jid]
        if session.connection is not None and error is not None:
            session.connection.down.send(error)
        self._hang_up(session)
        for stanza in session.waiting:
            self._bounce(stanza, "recipient-unavailable")


def _error(stanza: Element, condition: str) -> Element:
    """The answer in place of whom it was for."""
    answer = Element(CLIENT + "iq", {"type": "error", "id": stanza.get("id", "")})
    answer.set("from", stanza.get("to", ""))
    answer.set("to", stanza.get("from", ""))
    SubElement(SubElement(answer, CLIENT + "error"), _CONDITIONS + condition)
    return answer


def _whole(stanza: Element | None) -> bool:
    """Not one of several pieces of a frame: those would make no sense twice."""
    piece = None if stanza is None else stanza.find(FRAME)
    if piece is None:
        return True
    return piece.get("more") is None and (piece.text or "").startswith(HEADS)
