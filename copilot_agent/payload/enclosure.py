"""What holds all processes of one attempt together, whatever the system offers for it."""

from dataclasses import dataclass
from resource import struct_rusage
from typing import Protocol

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one attempt may have at most."""

    cores: int
    memory_bytes: int
    processes: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the processes of one attempt use now. The two flags say that the kernel said no."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    processes: int = 0
    memory_refused: bool = False
    process_refused: bool = False


class Enclosure(Protocol):
    """Every process that the payload starts stays inside and can be measured and killed."""

    @property
    def entries(self) -> tuple[int, ...]:
        """Open files; a new process writes `0` to each to come in."""

    def started(self, pid: int) -> None:
        """The payload's first process runs; closes the entries."""

    def ended(self, used: struct_rusage) -> None:
        """The first process is gone and has used so much."""

    def signal(self, number: int) -> None:
        """Sends a signal to everything inside."""

    def kill(self) -> bool:
        """One round of SIGKILL; returns whether nothing is left alive. Repeat until so."""

    def measure(self, *, empty: bool = False) -> Measured:
        """`empty`: nothing is left alive inside, so only what has added up is of interest."""

    def remove(self) -> bool:
        """Takes the empty enclosure away; False: still busy, try again."""
