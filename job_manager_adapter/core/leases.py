"""Leases: who has which attempt until when. Deadlines are the manager's own monotonic clock."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from copilot_agent.protocol.frames import Progress
from copilot_agent.protocol.job import Phase
from job_manager_adapter.core.matching import RequirementClass

Key = tuple[str, int]
"""(job, attempt): the fence."""
SLACK = 1000
"""Entries of the past that are kept beside as many as there are leases."""


@dataclass(slots=True, eq=False)
class Lease:
    job: str
    attempt: int
    pilot: str
    klass: RequirementClass
    priority: int
    since: float
    """When it was given, on the monotonic clock."""
    leased_at: float
    """The same in Unix time, for receipts."""
    deadline: float
    pause_seconds: float
    reference_cpu_seconds: float | None = None
    spec: bytes | None = None
    """Kept until the pilot holds the attempt; read again from the store where it is needed."""
    required: tuple[str, ...] | None = None
    """Outputs that a success must have; None until the offer is made, and after a restart."""
    phase: Phase | None = None
    """As the pilot last said; None until it holds the attempt."""
    progress: Progress | None = None
    began_at: float | None = None
    """Unix time when the pilot first said that it runs; None also after a restart."""
    started: bool = False
    ending: bool = False
    """A report is under way; the attempt takes no room any more."""
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        self.key = (self.job, self.attempt)

    @property
    def takes_room(self) -> bool:
        return not self.ending and self.phase is not Phase.REPORTING


@dataclass(slots=True)
class Leases:
    """All open leases of this manager."""

    _open: dict[Key, Lease] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    """(deadline, key), at least one entry per lease that is not later than its deadline."""

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: Key) -> bool:
        return key in self._open

    def get(self, key: Key) -> Lease | None:
        return self._open.get(key)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._open.values())

    def add(self, lease: Lease) -> None:
        self._open[lease.key] = lease
        self._watch(lease.deadline, lease.key)

    def drop(self, key: Key) -> Lease | None:
        return self._open.pop(key, None)

    def _watch(self, deadline: float, key: Key) -> None:
        """Short jobs end long before their leases would: their entries must not pile up."""
        if len(self._heap) > 2 * len(self._open) + SLACK:
            self._heap = [(lease.deadline, key) for key, lease in self._open.items()]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (deadline, key))

    def renew(self, lease: Lease, now: float, deadline: float) -> bool:
        """False for a lease that ran out: it is over, even if nobody has swept it up yet.

        Later deadlines cost nothing; the heap hears of them when the old one comes up.
        """
        if lease.deadline <= now:
            return False
        if deadline < lease.deadline:
            self._watch(deadline, lease.key)
        lease.deadline = deadline
        return True

    def prolong(self, seconds: float) -> None:
        """All of them, also those that ran out: for so long nobody could be heard."""
        for lease in self._open.values():
            lease.deadline += seconds

    def expired(self, now: float) -> list[Lease]:
        """Leases that ran out; they are named each time until they are dropped or renewed."""
        out: dict[Key, Lease] = {}
        while self._heap and self._heap[0][0] <= now:
            key = heapq.heappop(self._heap)[1]
            lease = self._open.get(key)
            if lease is None or key in out:
                continue
            if lease.deadline > now:
                heapq.heappush(self._heap, (lease.deadline, key))
            else:
                out[key] = lease
        for key, lease in out.items():
            heapq.heappush(self._heap, (lease.deadline, key))
        return list(out.values())
