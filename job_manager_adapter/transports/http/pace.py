"""How fast one connection may talk."""


class Pace:
    """A bucket of `burst` frames that fills at `rate` a second; who is faster has to wait."""

    def __init__(self, rate: float, burst: int) -> None:
        self._period = 1 / rate
        self._slack = burst * self._period
        self._due = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait before the next frame is read; counts one frame."""
        self._due = max(self._due, now - self._slack) + self._period
        return max(0.0, self._due - now)
