"""Who takes no more jobs, and until when what they hold may go on.

A drain is asked for one pilot, for the pilots of a host, or for the fleet, and each is taken back
on its own. A pilot drains while any of them covers it; the earliest deadline counts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

FLEET = "*"
Kind = Literal["pilot", "host", "fleet"]


@dataclass(frozen=True, slots=True)
class Drain:
    scope: str
    """A pilot's id, a host's, or `FLEET`."""
    at: float
    """When it was asked for, in Unix time."""
    until: float | None
    """Its deadline in Unix time, as it is stored and shown."""
    deadline: float | None
    """The same on the manager's monotonic clock; None: what is held may run to its end."""

    @property
    def kind(self) -> Kind:
        if self.scope == FLEET:
            return "fleet"
        return "host" if self.scope.startswith("h-") else "pilot"

    def covers(self, pilot: str, host: str) -> bool:
        return self.scope in (FLEET, host, pilot)

    def overdue(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def seconds_left(self, now: float) -> float | None:
        return None if self.deadline is None else max(self.deadline - now, 0.0)


@dataclass(slots=True)
class Drains:
    _drains: dict[str, Drain] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._drains)

    def __iter__(self) -> Iterator[Drain]:
        return iter(self._drains.values())

    def get(self, scope: str) -> Drain | None:
        return self._drains.get(scope)

    def put(self, drain: Drain) -> None:
        self._drains[drain.scope] = drain

    def remove(self, scope: str) -> None:
        self._drains.pop(scope, None)

    def replace(self, drains: Iterable[Drain]) -> None:
        """As they are stored. One that is known keeps its deadline, whatever the wall clock did."""
        fresh = {}
        for drain in drains:
            known = self._drains.get(drain.scope)
            same = known is not None and (known.at, known.until) == (drain.at, drain.until)
            fresh[drain.scope] = known if known and same else drain
        self._drains = fresh

    def of(self, pilot: str, host: str) -> Drain | None:
        """The one that counts."""
        covering = [one for scope in (pilot, host, FLEET) if (one := self._drains.get(scope))]
        return min(covering, key=_deadline, default=None)


def _deadline(drain: Drain) -> float:
    return float("inf") if drain.deadline is None else drain.deadline
