"""One question to components of Co-Pilot 1, and what they answer. No I/O happens here."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum

from pydantic import BaseModel

from copilot_agent.protocol.copilot1.commands import command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope, ack_of
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.job_data import parse_job_data
from copilot_agent.protocol.copilot1.monitor_commands import GetStatus, HaveStatus, Ping, Pong

MAX_ANSWERS = 10_000
MAX_ROWS = 1000
"""Of one answer."""


class Question(StrEnum):
    """What may be asked, and the original's name for it."""

    PING = ""
    LOAD = "systemLoad"
    DISK = "diskUsage"
    MEMORY = "memoryUsage"
    PROCESSES = "runningProcesses"


class Row(BaseModel):
    """One line of an answer; a ping's answer has one without values."""

    who: str
    seconds: float
    """From the question to the answer."""
    values: dict[str, str] = {}


class Asking:
    """Who is asked what, and who has answered."""

    def __init__(self, question: Question, room: str, targets: Sequence[str] = ()) -> None:
        """`targets` are nicks in the room or whole addresses; without any, all in the room."""
        self._question = question
        self._room = room
        self._targets = [to if "@" in to else f"{room}/{to}" for to in targets]
        self._asked_at = 0.0
        self._names: dict[str, str] = {}
        """Whom each of our messages asks, by its id."""
        self._answered: set[str] = set()
        self.rows: list[Row] = []
        self.absent: list[str] = []
        """Whom the server could not find."""

    @property
    def needs_room(self) -> bool:
        """Somebody is asked there."""
        inside = (target.partition("/")[0] == self._room for target in self._targets)
        return not self._targets or any(inside)

    @property
    def complete(self) -> bool:
        """All are heard of; never, if all in the room were asked."""
        return bool(self._targets) and self._answered >= set(self._targets)

    def questions(self, now: float, new_id: Callable[[], str]) -> list[Envelope]:
        self._asked_at = now
        self._names = {new_id(): target for target in self._targets or [self._room]}
        return [self._ask(target, id) for id, target in self._names.items()]

    def _ask(self, target: str, id: str) -> Envelope:
        command: Command = Ping()
        if self._question is not Question.PING:
            command = GetStatus(component=self._question.value)
        return Envelope(
            recipient=target,
            id=id,
            noack=command.noack,
            type="groupchat" if target == self._room else "",
            info=info_of(command),
        )

    def hear(self, envelope: Envelope, now: float) -> list[Envelope]:
        """What is to be sent upon it: the acknowledgement that the originals wait for."""
        if envelope.type == "error" and (target := self._names.get(envelope.id)):
            self._answered.add(target)
            self.absent.append(target)
        if envelope.info is None:
            return []
        with suppress(StanzaError):
            self._take(envelope.sender, command_of(envelope.info), now)
        return [ack_of(envelope)] if envelope.wants_ack else []

    def _take(self, sender: str, command: Command, now: float) -> None:
        if sender in self._answered or len(self._answered) >= MAX_ANSWERS:
            return  # the originals may send an answer again
        values: Sequence[Mapping[str, str]] = ()
        match command:
            case Pong() if self._question is Question.PING:
                values = [{}]
            case HaveStatus(component="" | self._question.value, status=status):
                values = _table(status) or [{}]
            case _:
                return
        self._answered.add(sender)
        took = round(now - self._asked_at, 3)
        self.rows += [Row(who=self._name(sender), seconds=took, values=dict(row)) for row in values]

    def _name(self, sender: str) -> str:
        room, _, nick = sender.partition("/")
        return nick if room == self._room and nick else sender


def _table(status: str) -> list[dict[str, str]]:
    """Columns of unequal length are filled up; text in another form is one value."""
    data = parse_job_data(status)
    if data.opaque:
        return [{"status": data.opaque}]
    columns = {
        key: value if isinstance(value, tuple) else (value,) for key, value in data.values.items()
    }
    length = min(MAX_ROWS, max(map(len, columns.values()), default=0))
    return [
        {key: column[row] if row < len(column) else "" for key, column in columns.items()}
        for row in range(length)
    ]
