"""How much of the launcher's time a guest may take."""


class Pace:
    """A budget of `burst` units that grows by `rate` units a second."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def spend(self, units: float, now: float) -> float:
        """Takes `units`, even on credit; seconds to wait before taking more."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - units
        self._at = now
        return max(0.0, -self._left / self._rate)
