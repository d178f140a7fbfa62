"""Jobs that rest between a failed attempt and the next one.

They wait in the database like others; only this process knows that they rest, so after a restart
of the manager they are retried at once.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from job_manager_adapter.core.retries import rest_seconds
from job_manager_adapter.store.records import Waiting

MAX_RESTING = 1000
"""Beyond these a failed job is retried at once: each claim has to look past all that rest."""


@dataclass(frozen=True, slots=True)
class Rest:
    job: str
    waiting: Waiting
    pilot: str
    """Where it failed."""
    timer: asyncio.TimerHandle


class Resting:
    def __init__(
        self,
        first_seconds: float,
        rested: Callable[[Rest], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_seconds = first_seconds
        self._rested = rested
        self._chance = chance
        self._rests: dict[str, Rest] = {}
        self._ending: Counter[str] = Counter()

    @contextmanager
    def ending(self, jobs: Iterable[str]) -> Iterator[None]:
        """While the end of their attempts is being committed, so that no claim is quicker."""
        ending = Counter(jobs)
        self._ending += ending
        try:
            yield
        finally:
            self._ending -= ending

    def add(self, job: str, waiting: Waiting, pilot: str, failures: int) -> bool:
        """Whether it rests now; `failures` says how often it has failed, 0: no rest."""
        self.drop(job)  # if it still rests, another manager's pilot had it meanwhile
        seconds = rest_seconds(failures, self._first_seconds, self._chance())
        if seconds <= 0 or len(self._rests) >= MAX_RESTING:
            return False
        timer = asyncio.get_running_loop().call_later(seconds, self._wake, job)
        self._rests[job] = Rest(job, waiting, pilot, timer)
        return True

    def seconds_left(self, job: str) -> float | None:
        """None if it does not rest."""
        rest = self._rests.get(job)
        now = asyncio.get_running_loop().time()
        return max(rest.timer.when() - now, 0.0) if rest else None

    def drop(self, job: str) -> bool:
        """It rests no more, for another reason than the end of its rest; whether it did."""
        rest = self._rests.pop(job, None)
        if rest is not None:
            rest.timer.cancel()
        return rest is not None

    def of_class(self, klass: int) -> frozenset[str]:
        """What a claim of that class must pass over."""
        rests = (rest.job for rest in self._rests.values() if rest.waiting.klass.id == klass)
        return frozenset((*rests, *self._ending))

    def __iter__(self) -> Iterator[Rest]:
        return iter(self._rests.values())

    def close(self) -> None:
        for job in list(self._rests):
            self.drop(job)

    def _wake(self, job: str) -> None:
        self._rested(self._rests.pop(job))
