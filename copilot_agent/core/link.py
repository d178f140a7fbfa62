"""The connection to the manager: one attach after the other, with back-off between them.

    state       event                    next        effects
    ----------- ------------------------ ----------- -------------------------------------------
    OFFLINE     `connect_at` reached     CONNECTING  Connect
    CONNECTING  Connected                ATTACHING   SendFrame(session=None: all that is held)
    ATTACHING   FrameReceived            ATTACHED    (the frame names the session)
    ATTACHING   no answer in 30 s        OFFLINE     Disconnect
    ATTACHED    FrameReceived            ATTACHED    (an older session's frames are ignored)
    any         ConnectionLost           OFFLINE     (connect again after the back-off)
    any         Resumed, ClockJumped     OFFLINE     Disconnect (connect again at once)

At most one frame is on its way to the system at a time; what happens meanwhile joins the next.
"""

from enum import Enum, auto

from copilot_agent.core import effects as do
from copilot_agent.core.backoff import doubled, half
from copilot_agent.core.effects import Effect
from copilot_agent.core.events import ConnectionLost, TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, Policy

ATTACH_SECONDS = 30.0
BACKOFF_FIRST = 1.0
BACKOFF_MOST = 60.0


class LinkState(Enum):
    OFFLINE = auto()
    CONNECTING = auto()
    ATTACHING = auto()
    ATTACHED = auto()


class Link:
    def __init__(self) -> None:
        self.state = LinkState.OFFLINE
        self.session: int | None = None
        self.sequence = 0
        self.in_flight: int | None = None
        self.trouble = ""
        """Why there is no connection, for people."""
        self.connect_at: float | None = 0.0
        self._attach_by: float | None = None
        self._backoff_first = BACKOFF_FIRST
        self._backoff_most = BACKOFF_MOST
        self._failures = 0
        self._renew = False
        self._jitter = 0.5

    @property
    def attached(self) -> bool:
        return self.state is LinkState.ATTACHED

    @property
    def next_due(self) -> float | None:
        return self.connect_at if self.state is LinkState.OFFLINE else self._attach_by

    def use(self, policy: Policy) -> None:
        """Where leases are short, a pilot must be back within one's grace."""
        self._backoff_first = policy.reconnect_seconds
        self._backoff_most = min(BACKOFF_MOST, policy.lease_seconds / 2)

    def tick(self, now: float) -> list[Effect]:
        if self.state is LinkState.OFFLINE:
            if self.connect_at is None or now < self.connect_at:
                return []
            self.state = LinkState.CONNECTING
            renew, self._renew = self._renew, False
            return [do.Connect(renew)]
        if self._attach_by is not None and now >= self._attach_by:
            self.trouble = "the manager did not answer"
            self._failures += 1
            return self.drop(now + self._backoff(self._jitter))
        return []

    def connected(self, now: float, jitter: float) -> bool:
        """False if nobody asked for it any more."""
        if self.state is not LinkState.CONNECTING:
            return False
        self.state = LinkState.ATTACHING
        self.session = None
        self._attach_by = now + ATTACH_SECONDS
        self._jitter = jitter
        return True

    def received(self, frame: ManagerFrame) -> bool:
        """False if the frame belongs to a session that is over."""
        if self.state is LinkState.ATTACHING:
            self.state = LinkState.ATTACHED
            self.session = frame.session
            self._attach_by = None
            self._failures = 0
            self.trouble = ""
        return self.attached and self.session == frame.session

    def lost(self, event: ConnectionLost, now: float) -> None:
        self._failures += 1
        asked = min(event.wait_seconds, BACKOFF_MOST) * (1 + event.jitter / 2)
        self._offline(now + max(asked, self._delay(event)))
        self.trouble = event.message

    def drop(self, connect_at: float | None) -> list[Effect]:
        """Ends the connection from this side."""
        self._offline(connect_at)
        return [do.Disconnect()]

    def next_sequence(self) -> int:
        self.sequence += 1
        self.in_flight = self.sequence
        return self.sequence

    def sent(self, sequence: int) -> None:
        if self.in_flight == sequence:
            self.in_flight = None

    def _offline(self, connect_at: float | None) -> None:
        self.state = LinkState.OFFLINE
        self.session = None
        self.in_flight = None
        self._attach_by = None
        self.connect_at = connect_at

    def _delay(self, event: ConnectionLost) -> float:
        match event.trouble:
            case TransportTrouble.TOKEN:
                self._renew = True
                return 0.0 if self._failures == 1 else self._backoff(event.jitter)
            case TransportTrouble.SUPERSEDED | TransportTrouble.MALFORMED:
                return half(BACKOFF_MOST, event.jitter)
            case TransportTrouble.UNREACHABLE | TransportTrouble.RETIRED:
                return self._backoff(event.jitter)

    def _backoff(self, jitter: float) -> float:
        return doubled(self._backoff_first, self._failures, self._backoff_most, jitter)
