"""What a BOINC task has done so far: over restarts of the launcher, and in CPU time."""

from dataclasses import dataclass


@dataclass
class Progress:
    """Kept in the slot from one start of the task to the next."""

    running_seconds: float = 0.0
    """How long its VM has run."""
    idle_since: float | None = None
    """Unix time since when the VM has had no job; None while it has."""
    jobs_succeeded: int = 0
    jobs_failed: int = 0
    receipts: int = 0
    trickled_seconds: float = 0.0
    """CPU seconds that were told by trickles."""
    saved_cpu_seconds: float = 0.0
    """All that was used when the VM was saved; a client that quits does not listen any more."""
    finish_soon: bool = False


class JobCount:
    """The guest counts from 0 in each boot, and when its agent was started again."""

    def __init__(self) -> None:
        self._boot = 0
        self._last = (0, 0)

    def fresh(self, boot: int, succeeded: int, failed: int) -> tuple[int, int]:
        """How many more of each since the last look."""
        again = boot != self._boot or succeeded < self._last[0] or failed < self._last[1]
        before = (0, 0) if again else self._last
        self._boot, self._last = boot, (succeeded, failed)
        return succeeded - before[0], failed - before[1]


class Meter:
    """CPU seconds of all the VMs of one task, as BOINC wants them.

    `total` goes on from the last checkpoint that the client knows of. `saved` is what the saved VM,
    which is to go on, has on its meter already.
    """

    def __init__(self, total: float, saved: float = 0.0) -> None:
        self.total = total
        self.checkpoint = total
        self._last = saved

    def read(self, reading: float | None) -> None:
        """A reading lower than the last one is another VM's."""
        if reading is None:
            return
        self.total += reading if reading < self._last else reading - self._last
        self._last = reading

    def mark(self) -> None:
        self.checkpoint = self.total
