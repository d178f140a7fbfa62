"""Messages that were heard before: originals send theirs again for a day, or for ever."""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto

from copilot_agent.protocol.copilot1.job_commands import Command

KEEP_SECONDS = 25 * 3600.0
MAX_AGENTS = 20_000
MAX_MESSAGES = 64
"""Of one agent."""


class State(Enum):
    UNDER_WAY = auto()
    DONE = auto()


@dataclass(slots=True)
class Message:
    heard: float
    state: State = State.UNDER_WAY
    answer: Command | None = None


@dataclass(slots=True)
class Memory:
    """Bounded: the agent that was silent for longest is forgotten, and its oldest messages."""

    _agents: OrderedDict[str, OrderedDict[str, Message]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return sum(map(len, self._agents.values()))

    def find(self, agent: str, name: str) -> Message | None:
        messages = self._agents.get(agent)
        return messages.get(name) if messages else None

    def keep(self, agent: str, name: str, now: float) -> Message:
        messages = self._agents.setdefault(agent, OrderedDict())
        self._agents.move_to_end(agent)
        message = messages[name] = Message(now)
        while messages and (
            len(messages) > MAX_MESSAGES or next(iter(messages.values())).heard < now - KEEP_SECONDS
        ):
            messages.popitem(last=False)
        self._forget(now)
        return message

    def drop(self, agent: str, name: str) -> None:
        """It is as if it had never come."""
        self._agents.get(agent, OrderedDict()).pop(name, None)

    def _forget(self, now: float) -> None:
        while len(self._agents) > MAX_AGENTS or self._is_old(next(iter(self._agents)), now):
            self._agents.popitem(last=False)

    def _is_old(self, agent: str, now: float) -> bool:
        messages = self._agents[agent]
        newest = next(reversed(messages.values()), None)
        return newest is None or newest.heard < now - KEEP_SECONDS
