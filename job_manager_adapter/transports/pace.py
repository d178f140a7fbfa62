"""How fast one connection, or one pilot on many of them, may talk."""

import asyncio

MOST_REMEMBERED = 20_000
FRAMES_PER_JOB = 4
"""A pilot may say so many more for each job that it has finished, however short those are."""


class Pace:
    """A bucket of `burst` frames that fills at `rate` a second; who is faster has to wait."""

    __slots__ = ("_due", "_period", "_slack")

    def __init__(self, rate: float, burst: int) -> None:
        self._period = 1 / rate
        self._slack = burst * self._period
        self._due = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait before the next frame is read; counts one frame."""
        self._due = max(self._due, now - self._slack) + self._period
        return max(0.0, self._due - now)

    def forgive(self, frames: int) -> None:
        """So many frames were worth reading."""
        self._due -= frames * self._period


class Paces:
    """A pace for each name; who has not been heard for longest is forgotten first."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._paces: dict[str, Pace] = {}

    async def keep(self, name: str) -> None:
        """Waits until it is the turn of `name` again."""
        pace = self._paces.pop(name, None) or Pace(self._rate, self._burst)
        self._paces[name] = pace
        if len(self._paces) > MOST_REMEMBERED:
            del self._paces[next(iter(self._paces))]
        if delay := pace.delay(asyncio.get_running_loop().time()):
            await asyncio.sleep(delay)

    def forgive(self, name: str, frames: int) -> None:
        if frames and (pace := self._paces.get(name)):
            pace.forgive(frames)
