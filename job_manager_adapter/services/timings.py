"""How long things take, for /metrics; half a microsecond for each."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

SHORT = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
LONG = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0, 172800.0)


class Durations:
    """A histogram in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        """How many were above the bound before and not above this one; last: above all."""
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus wants them."""
        count, buckets = 0, []
        for bound, more in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += more
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(count)))
        return buckets


def _short() -> Durations:
    return Durations(SHORT)


def _long() -> Durations:
    return Durations(LONG)


@dataclass(slots=True)
class Timings:
    match: Durations = field(default_factory=_short)
    """Of rounds of matching that found something."""
    wait: Durations = field(default_factory=_long)
    """From a job's submission to the lease of its first attempt."""
    run: Durations = field(default_factory=_long)
    """Of payloads, as their pilots say."""
