"""Who gets which kind of job: by priority, then age; experiments take turns.

It works on counters of waiting jobs per (class, priority), so its cost depends neither on how many
jobs wait nor on how many pilots there are: pilots with the same room are one entry. What it picks
is a wish; `store.claim` decides.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from copilot_agent.protocol.job import Requirements


@dataclass(frozen=True, slots=True)
class RequirementClass:
    """Jobs of one experiment that ask for the same; numbered by the store."""

    id: int
    experiment: str
    requirements: Requirements


class Room(NamedTuple):
    """What a pilot can take now: free slots, and how many jobs may queue beyond them."""

    cores: int
    memory_mib: int
    disk_mib: int
    queue: int
    whole_cores: int
    whole_memory_mib: int
    whole_disk_mib: int
    platform: str
    cpu_flags: frozenset[str]

    def takes(self, need: Requirements) -> bool:
        """Whether one more job fits: into a slot, or into the queue if it could ever run."""
        if need.platform != self.platform or not self.cpu_flags.issuperset(need.cpu_flags):
            return False
        if self.fits_now(need):
            return True
        return (
            self.queue > 0
            and need.cores <= self.whole_cores
            and need.memory_mib <= self.whole_memory_mib
            and need.disk_mib <= self.whole_disk_mib
        )

    def fits_now(self, need: Requirements) -> bool:
        return (
            need.cores <= self.cores
            and need.memory_mib <= self.memory_mib
            and need.disk_mib <= self.disk_mib
        )

    def less(self, need: Requirements) -> "Room":
        """What is left after one more job."""
        if self.fits_now(need):
            return self._replace(
                cores=self.cores - need.cores,
                memory_mib=self.memory_mib - need.memory_mib,
                disk_mib=self.disk_mib - need.disk_mib,
            )
        return self._replace(queue=self.queue - 1)

    @property
    def empty(self) -> bool:
        return self.cores <= 0 and self.queue <= 0


@dataclass(slots=True)
class Bucket:
    """Waiting jobs of one class and priority."""

    klass: RequirementClass
    priority: int
    head: int
    """Sequence of the oldest one, as far as known."""
    count: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        return (-self.priority, self.head, self.klass.id)


class Pick(NamedTuple):
    pilot: str
    klass: RequirementClass
    priority: int


@dataclass(slots=True)
class Matcher:
    _buckets: dict[tuple[int, int], Bucket] = field(default_factory=dict)
    _ranked: dict[str, list[Bucket]] = field(default_factory=dict)
    """By experiment, best first; the experiment whose turn it is comes first."""
    _hungry: dict[Room, dict[str, None]] = field(default_factory=dict)
    """Pilots by their room, longest waiting first."""
    _rooms: dict[str, Room] = field(default_factory=dict)

    # What waits

    def add(self, klass: RequirementClass, priority: int, count: int, head: int) -> None:
        """Counts jobs in (or, with a negative count, out); they may come in any order."""
        bucket = self._buckets.get((klass.id, priority))
        if bucket is None:
            bucket = Bucket(klass, priority, head)
            self._buckets[klass.id, priority] = bucket
            insort(self._ranked.setdefault(klass.experiment, []), bucket, key=_rank)
        elif count > 0 and head < bucket.head:
            self._move(bucket, head)
        bucket.count += count
        if bucket.count == 0:
            self._remove(bucket)

    def learn(self, klass: RequirementClass, priority: int, head: int) -> None:
        """Everything before `head` is known to be taken."""
        bucket = self._buckets.get((klass.id, priority))
        if bucket and head > bucket.head:
            self._move(bucket, head)

    def replace(self, waiting: Iterator[tuple[RequirementClass, int, int, int]]) -> None:
        """Forgets all counters for these: (class, priority, count, head)."""
        self._buckets.clear()
        self._ranked.clear()
        for klass, priority, count, head in waiting:
            self.add(klass, priority, count, head)

    def waiting(self) -> dict[str, int]:
        """Jobs that wait, by experiment."""
        return {
            experiment: sum(max(bucket.count, 0) for bucket in buckets)
            for experiment, buckets in self._ranked.items()
        }

    # Who is hungry

    def offer_room(self, pilot: str, room: Room) -> None:
        """The pilot goes to the end of the line of those with the same room."""
        self.withdraw(pilot)
        if not room.empty:
            self._rooms[pilot] = room
            self._hungry.setdefault(room, {})[pilot] = None

    def withdraw(self, pilot: str) -> None:
        room = self._rooms.pop(pilot, None)
        if room is not None:
            line = self._hungry[room]
            del line[pilot]
            if not line:
                del self._hungry[room]

    def room(self, pilot: str) -> Room | None:
        return self._rooms.get(pilot)

    def rooms(self) -> dict[Room, int]:
        """How many pilots have which room."""
        return {room: len(line) for room, line in self._hungry.items()}

    # Matching

    def match(self, pilot: str | None = None) -> list[Pick]:
        """Fills the room of one pilot, or of all of them; what is picked is counted out."""
        if not self._ranked:
            return []
        if pilot is not None:
            return self._fill(pilot)
        picks: list[Pick] = []
        while new := self._round():
            picks += new
        return picks

    def _fill(self, pilot: str) -> list[Pick]:
        picks = []
        while (room := self._rooms.get(pilot)) and (bucket := self._best(room)):
            picks.append(self._take(pilot, room, bucket))
        return picks

    def _round(self) -> list[Pick]:
        """One job for each hungry pilot, as far as they go."""
        picks = []
        for room in list(self._hungry):
            while (line := self._hungry.get(room)) and (bucket := self._best(room)):
                picks.append(self._take(next(iter(line)), room, bucket))
        return picks

    def _best(self, room: Room) -> Bucket | None:
        for buckets in self._ranked.values():
            for bucket in buckets:
                if bucket.count > 0 and room.takes(bucket.klass.requirements):
                    return bucket
        return None

    def _take(self, pilot: str, room: Room, bucket: Bucket) -> Pick:
        self.offer_room(pilot, room.less(bucket.klass.requirements))
        bucket.count -= 1
        experiment = bucket.klass.experiment
        if bucket.count == 0:
            self._remove(bucket)
        if experiment in self._ranked and len(self._ranked) > 1:
            self._ranked[experiment] = self._ranked.pop(experiment)  # its turn is over
        return Pick(pilot, bucket.klass, bucket.priority)

    def _move(self, bucket: Bucket, head: int) -> None:
        ranked = self._ranked[bucket.klass.experiment]
        del ranked[bisect_left(ranked, bucket.rank, key=_rank)]
        bucket.head = head
        insort(ranked, bucket, key=_rank)

    def _remove(self, bucket: Bucket) -> None:
        del self._buckets[bucket.klass.id, bucket.priority]
        ranked = self._ranked[bucket.klass.experiment]
        del ranked[bisect_left(ranked, bucket.rank, key=_rank)]
        if not ranked:
            del self._ranked[bucket.klass.experiment]


def _rank(bucket: Bucket) -> tuple[int, int, int]:
    return bucket.rank
