"""The original's Heartbeat: who is asked in a chat room, or directly, says how it is doing.

Not to be taken for a pilot's heartbeat. It is the one plugin of the original, and names of commands
for plugins are `Plugin:command`. An answer goes to who asked, never to the whole room: that is what
the recorded programs do, and a room of n members would otherwise hear n² messages.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from copilot_agent.protocol.copilot1.commands import command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope, ack_of
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.monitor_commands import GetStatus, HaveStatus, Ping, Pong
from copilot_agent.xmpp.status import STATUSES, status_of

log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""So long a status is told again instead of being found out anew."""
MAX_ASKERS = 256
"""Remembered with how much they have asked."""


@dataclass(frozen=True)
class Pace:
    """How much may be asked: `burst` at once, and then so many each second."""

    burst: float
    per_second: float


EACH, ALL = Pace(8, 1), Pace(64, 8)
"""Of one asker, and of all together. Beyond it nothing is answered, not even acknowledged."""


class _Bucket:
    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._left = pace.burst
        self._at = now

    def take(self, now: float) -> bool:
        gained = max(0.0, now - self._at) * self._pace.per_second
        self._left, self._at = min(self._pace.burst, self._left + gained), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


Heard = Callable[[Envelope], Awaitable[None]]
"""Takes a message, to handle it or to send it."""


def is_for_plugin(command: str) -> bool:
    """Whether the original would hand it to a plugin and not to the component itself."""
    return ":" in command


class Heartbeats:
    """Decides what is answered. `new_id` makes ids of messages, `status` looks at the computer."""

    def __init__(
        self,
        new_id: Callable[[], str],
        status: Callable[[str], str] = status_of,
        *,
        each: Pace = EACH,
        all_: Pace = ALL,
    ) -> None:
        self._new_id = new_id
        self._status = status
        self._each, self._all = each, all_
        self._total: _Bucket | None = None
        self._askers: OrderedDict[str, _Bucket] = OrderedDict()
        self._known: dict[str, tuple[float, str]] = {}

    def replies(self, envelope: Envelope, now: float) -> list[Envelope] | None:
        """What is to be sent, the acknowledgement first; None if it is not for a plugin.

        `now` is any clock's seconds.
        """
        name = (envelope.info or {}).get("command")
        if not isinstance(name, str) or not is_for_plugin(name):
            return None
        if not (envelope.id and envelope.sender and self._may_ask(envelope.sender, now)):
            return []  # the originals ignore what has no id as well
        said = [ack_of(envelope)] if envelope.wants_ack else []
        if (answer := self._answer(envelope, now)) is not None:
            said.append(self._to(envelope.sender, answer))
        return said

    def _may_ask(self, asker: str, now: float) -> bool:
        """One who asks too much does not use up what the others may ask."""
        bucket = self._askers.pop(asker, None) or _Bucket(self._each, now)
        self._askers[asker] = bucket
        if len(self._askers) > MAX_ASKERS:
            self._askers.popitem(last=False)
        if self._total is None:
            self._total = _Bucket(self._all, now)
        return bucket.take(now) and self._total.take(now)

    def _answer(self, envelope: Envelope, now: float) -> Command | None:
        """None for unknown commands and components, about which the original is silent as well."""
        try:
            command = command_of(envelope.info or {})
        except StanzaError:
            return None
        match command:
            case Ping():
                return Pong()
            case GetStatus(component=component):
                return self._have_status(component[:1].lower() + component[1:], now)
            case _:
                return None

    def _have_status(self, component: str, now: float) -> HaveStatus | None:
        if component not in STATUSES:
            return None
        read_at, text = self._known.get(component, (float("-inf"), ""))
        if now - read_at >= FRESH_SECONDS:
            try:
                text = self._status(component)
            except (OSError, ValueError, IndexError) as error:  # it is asked again
                log.warning("co-pilot 1: no %s of this computer: %s", component, error)
                return None
            self._known[component] = (now, text)
        # the original leaves the name of this one empty
        name = "" if component == "runningProcesses" else component
        return HaveStatus(component=name, status=text)

    def _to(self, recipient: str, command: Command) -> Envelope:
        return Envelope(
            recipient=recipient, id=self._new_id(), noack=command.noack, info=info_of(command)
        )

    def before(self, heard: Heard, send: Heard, clock: Callable[[], float]) -> Heard:
        """For an `Account`: what is for plugins is answered, `heard` is told of all else."""

        async def hear(envelope: Envelope) -> None:
            if (replies := self.replies(envelope, clock())) is None:
                await heard(envelope)
                return
            for reply in replies:
                await send(reply)

        return hear
