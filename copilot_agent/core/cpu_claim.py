"""How much of a payload's CPU time the host has really given. Arithmetic only.

A guest cannot see when its host lets the hypervisor rest: its clocks go on, and the process that
held the processor seems to have worked all the while. The launcher tells what the hypervisor has
used; between two such readings all payloads are slowed alike, so each claims that part of its time.
"""

from dataclasses import dataclass

LEAST_BUSY_SECONDS = 0.5
"""A guest that did less between two readings tells nothing about its speed."""


@dataclass(frozen=True)
class Reading:
    """Two counters at the same moment, in seconds that add up over all processors."""

    host: float
    """CPU time of the hypervisor."""
    busy: float
    """Time in which the guest's processors were not idle, by the guest's clock."""


class CpuShare:
    """Which part of the guest's CPU time is real; all of it until readings say otherwise."""

    def __init__(self) -> None:
        self.part = 1.0
        self._last: Reading | None = None

    def read(self, now: Reading) -> bool:
        """Whether `part` is now about the time since the reading before."""
        last, self._last = self._last, now
        if last is None or now.host < last.host or now.busy < last.busy + LEAST_BUSY_SECONDS:
            return False
        self.part = min(1.0, (now.host - last.host) / (now.busy - last.busy))
        return True

    def interrupt(self) -> None:
        """The hypervisor has worked while the guest was stopped: on saving and restoring it."""
        self._last = None


class CpuClaim:
    """One payload's claim: never more than its CPU time in the guest."""

    def __init__(self) -> None:
        self._counted = 0.0
        """CPU time in the guest up to which `_claimed` goes."""
        self._claimed = 0.0

    def settle(self, guest_seconds: float, part: float) -> None:
        """`part` is known for all that was used since the last time."""
        self._claimed = self.so_far(guest_seconds, part)
        self._counted = max(self._counted, guest_seconds)

    def so_far(self, guest_seconds: float, part: float) -> float:
        """With `part`, the newest that is known, for what is not settled yet."""
        fresh = max(0.0, guest_seconds - self._counted)
        return min(guest_seconds, self._claimed + part * fresh)
