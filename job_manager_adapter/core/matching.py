"""Who gets which kind of job: by priority, then age; experiments take turns.

It works on counters of waiting jobs per (class, priority), and a ranking finds the best of them
that fits, so its cost depends neither on how many jobs wait, nor on how many classes, nor on how
many pilots there are: pilots with the same room are one entry. What it picks is a wish;
`store.claim` decides.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.ranking import Need, Rank, Ranking

MOST_ROOMS = 64
"""Different ones that are looked at for jobs that are just being stored."""


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
    experiments: frozenset[str] | None = None
    """Whose jobs it takes; None: everybody's."""

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

    def limits(self) -> Need:
        """The most that one more job may need."""
        if self.queue > 0:
            most = (self.whole_cores, self.whole_memory_mib, self.whole_disk_mib)
        else:
            most = (self.cores, self.memory_mib, self.disk_mib)
        return Need(self.platform, self.cpu_flags, *most)

    def serves(self, experiment: str) -> bool:
        return self.experiments is None or experiment in self.experiments

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
    need: Need
    count: int = 0
    """Below 0 while a claim, or news of a job's end, is ahead of the news of its submission."""

    @property
    def rank(self) -> Rank:
        return (-self.priority, self.head, self.klass.id)


class Kind(NamedTuple):
    """What jobs of one bucket have in common, before the store has told their class."""

    experiment: str
    requirements: Requirements
    priority: int


class Pick(NamedTuple):
    pilot: str
    klass: RequirementClass
    priority: int


@dataclass(slots=True)
class Matcher:
    _buckets: dict[tuple[int, int], Bucket] = field(default_factory=dict)
    """By class number and priority; also empty ones, which often fill again."""
    _kinds: dict[Kind, Bucket] = field(default_factory=dict)
    _rankings: dict[str, Ranking] = field(default_factory=dict)
    """By experiment."""
    _waiting: Counter[str] = field(default_factory=Counter)
    """Jobs by experiment."""
    _turns: dict[str, Ranking] = field(default_factory=dict)
    """Of experiments with waiting jobs; the one whose turn it is comes first."""
    _hungry: dict[Room, OrderedDict[str, None]] = field(default_factory=dict)
    """Pilots by their room, longest waiting first. A plain dict is slow to lose its first ones."""
    _starved: dict[Room, OrderedDict[str, None]] = field(default_factory=dict)
    """Those for whom nothing was found, until another kind of job waits."""
    _rooms: dict[str, Room] = field(default_factory=dict)

    # What waits

    def add(self, klass: RequirementClass, priority: int, count: int, head: int) -> None:
        """Counts jobs in (or, with a negative count, out); they may come in any order."""
        bucket = self._buckets.get((klass.id, priority))
        if bucket is None:
            bucket = Bucket(klass, priority, head, _need(klass.requirements))
            self._buckets[klass.id, priority] = bucket
            self._kinds[Kind(klass.experiment, klass.requirements, priority)] = bucket
        elif not bucket.count or (count > 0 and head < bucket.head):
            bucket.head = head
        self._count(bucket, count)

    def give_back(self, klass: RequirementClass, priority: int, count: int) -> None:
        """Of what was picked so many were not claimed; they are as old as they were."""
        bucket = self._buckets.get((klass.id, priority))
        self.add(klass, priority, count, bucket.head if bucket else 0)

    def learn(self, klass: RequirementClass, priority: int, head: int) -> None:
        """Everything before `head` is known to be taken."""
        bucket = self._buckets.get((klass.id, priority))
        if bucket and head > bucket.head:
            bucket.head = head
            if bucket.count > 0:
                self._rankings[klass.experiment].put((klass.id, priority), bucket.need, bucket.rank)

    def replace(self, waiting: Iterable[tuple[RequirementClass, int, int, int]]) -> None:
        """Forgets all counters for these: (class, priority, count, head)."""
        self._buckets.clear()
        self._kinds.clear()
        self._rankings.clear()
        self._turns.clear()
        self._waiting.clear()
        for klass, priority, count, head in waiting:
            self.add(klass, priority, count, head)

    def run_dry(self, klass: int) -> None:
        """Nothing of that class waits."""
        for (number, _), bucket in list(self._buckets.items()):
            if number == klass and bucket.count:
                self._count(bucket, -bucket.count)

    def classes(self) -> set[int]:
        """Numbers of those of which jobs wait."""
        return {number for (number, _), bucket in self._buckets.items() if bucket.count > 0}

    def waiting(self) -> dict[str, int]:
        """Jobs that wait, by experiment."""
        return {experiment: count for experiment, count in self._waiting.items() if count}

    def _count(self, bucket: Bucket, count: int) -> None:
        experiment, key = bucket.klass.experiment, (bucket.klass.id, bucket.priority)
        before, bucket.count = bucket.count, bucket.count + count
        self._waiting[experiment] += max(bucket.count, 0) - max(before, 0)
        ranking = self._rankings.get(experiment)
        if ranking is None:
            ranking = self._rankings[experiment] = Ranking()
        if bucket.count > 0:
            ranking.put(key, bucket.need, bucket.rank)
            self._turns.setdefault(experiment, ranking)
            if before <= 0:
                self._feed_all()
        elif before > 0:
            ranking.drop(key)
            if not self._waiting[experiment]:
                del self._turns[experiment]

    # Who is hungry

    def offer_room(self, pilot: str, room: Room) -> None:
        """The pilot goes to the end of the line of those with the same room."""
        self.withdraw(pilot)
        if not room.empty:
            self._rooms[pilot] = room
            lines = self._starved if room in self._starved else self._hungry
            lines.setdefault(room, OrderedDict())[pilot] = None

    def withdraw(self, pilot: str) -> None:
        room = self._rooms.pop(pilot, None)
        if room is not None:
            lines = self._starved if room in self._starved else self._hungry
            line = lines[room]
            del line[pilot]
            if not line:
                del lines[room]

    @property
    def idle(self) -> bool:
        """Whether some pilot has room."""
        return bool(self._rooms)

    def room(self, pilot: str) -> Room | None:
        return self._rooms.get(pilot)

    def rooms(self) -> dict[Room, int]:
        """How many pilots have which room."""
        lines = self._hungry | self._starved
        return {room: len(line) for room, line in lines.items()}

    def _starve(self, room: Room) -> None:
        """Nothing that waits fits; no need to look again before something else waits."""
        if line := self._hungry.pop(room, None):
            self._starved[room] = line

    def _feed_all(self) -> None:
        few, many = sorted((self._hungry, self._starved), key=len)
        many.update(few)
        self._hungry, self._starved = many, {}

    # Matching

    def has_job_for(self, room: Room) -> bool:
        """Whether something waits that fits; nothing is picked."""
        return self._best(room) is not None

    def match(self, pilot: str | None = None) -> list[Pick]:
        """Fills the room of one pilot, or of all of them; what is picked is counted out."""
        if pilot is not None:
            return self._fill(pilot)
        picks: list[Pick] = []
        while new := self._round():
            picks += new
        return picks

    def reserve(self, kinds: Counter[Kind]) -> list[Pick]:
        """Idle pilots for jobs that are just being stored; they are counted out before they wait.

        Nothing else waits for these pilots: else they would not be idle. Kinds that were never
        seen before are left out.
        """
        picks: list[Pick] = []
        for kind, count in kinds.items():
            if bucket := self._kinds.get(kind):
                picks += self._reserve(bucket, count)
        return picks

    def _reserve(self, bucket: Bucket, count: int) -> list[Pick]:
        need = bucket.klass.requirements
        picks: list[Pick] = []
        rooms = [*islice(chain(self._hungry, self._starved), MOST_ROOMS)]
        fits = [room for room in rooms if room.serves(bucket.klass.experiment) and room.takes(need)]
        for room in fits:
            while len(picks) < count and (pilot := self._first(room)):
                picks.append(self._take(pilot, room, bucket))
        return picks

    def _first(self, room: Room) -> str | None:
        line = self._hungry.get(room) or self._starved.get(room)
        return next(iter(line)) if line else None

    def _fill(self, pilot: str) -> list[Pick]:
        picks = []
        while (room := self._rooms.get(pilot)) and (bucket := self._find(room)):
            picks.append(self._take(pilot, room, bucket))
        return picks

    def _round(self) -> list[Pick]:
        """One job for each hungry pilot, as far as they go."""
        picks = []
        for room in list(self._hungry):
            if not self._turns:
                break
            while (line := self._hungry.get(room)) and (bucket := self._find(room)):
                picks.append(self._take(next(iter(line)), room, bucket))
        return picks

    def _find(self, room: Room) -> Bucket | None:
        """The best for that room; none has to be looked for twice."""
        if room in self._starved:
            return None
        bucket = self._best(room)
        if bucket is None:
            self._starve(room)
        return bucket

    def _best(self, room: Room) -> Bucket | None:
        limits = room.limits()
        for experiment, ranking in self._turns.items():
            if room.serves(experiment) and (key := ranking.best(limits)):
                return self._buckets[key]
        return None

    def _take(self, pilot: str, room: Room, bucket: Bucket) -> Pick:
        self.offer_room(pilot, room.less(bucket.klass.requirements))
        self._count(bucket, -1)
        experiment = bucket.klass.experiment
        if experiment in self._turns and len(self._turns) > 1:
            self._turns[experiment] = self._turns.pop(experiment)  # its turn is over
        return Pick(pilot, bucket.klass, bucket.priority)


def _need(requirements: Requirements) -> Need:
    return Need(
        requirements.platform,
        frozenset(requirements.cpu_flags),
        requirements.cores,
        requirements.memory_mib,
        requirements.disk_mib,
    )
