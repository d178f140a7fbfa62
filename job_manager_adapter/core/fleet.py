"""Pilots as the manager knows them while it runs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Wants
from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.leases import Key, Lease
from job_manager_adapter.core.matching import RequirementClass, Room
from job_manager_adapter.views import PilotState

NOTHING = Wants(cores=0, memory_mib=0, disk_mib=0)
MOST_DIFFERENT = 10_000
"""Kinds of wants that are kept to be shared."""
MOST_SETS = 1000
"""Of processor features, with hundreds in each."""


@dataclass(frozen=True, slots=True)
class Doomed:
    needs: Requirements
    command: str
    """Which tells the pilot; said no more once the pilot does not name the attempt."""


@dataclass(slots=True, eq=False)
class Pilot:
    id: str
    host: str
    enrolment: str
    launcher_key: str
    capabilities: Capabilities
    cpu_flags: frozenset[str]
    wants: Wants = NOTHING
    seen: float | None = None
    """Monotonic time of its last frame to this process."""
    seen_at: float | None = None
    """The same in Unix time."""
    noted_at: float | None = None
    """`seen_at` as the store has it."""
    unwritten: bool = False
    """The store has not yet taken what it said of a pause or of its capabilities."""
    session: int = 0
    attached: bool = False
    silent: bool = False
    """A lease of its ran out without a word; its connection may only seem to live."""
    sequence: int = -1
    """Newest frame of the session."""
    paused: bool = False
    leaving: bool = False
    """It says itself that it drains."""
    departed: bool = False
    """It has said good-bye; it may still come back."""
    draining: bool = False
    """An operator said so: of it, of its host or of the fleet."""
    drain_command: str = ""
    """The latest word about that; it takes the place of earlier ones."""
    retired: bool = False
    elsewhere: bool = False
    """It attached to another manager of the same database."""
    leases: dict[Key, Lease] = field(default_factory=dict)
    doomed: dict[Key, Doomed] = field(default_factory=dict)
    """Attempts it still holds although they are no longer its own; they take room until then."""
    room_until: float = 0.0
    """Until then its room is looked at only when something moves (monotonic)."""
    reserved: Counter[int] = field(default_factory=Counter)
    """Claims under way, by class number."""
    reserved_needs: dict[int, Requirements] = field(default_factory=dict)
    experiments: frozenset[str] | None = None
    """Whose jobs it may get; None: everybody's."""

    def room(self) -> Room:
        """What it wants less what it has."""
        wants = self.wants
        cores, memory_mib, disk_mib = wants.cores, wants.memory_mib, wants.disk_mib
        queue = wants.window
        for need in self._taken():
            if need.cores <= cores and need.memory_mib <= memory_mib and need.disk_mib <= disk_mib:
                cores -= need.cores
                memory_mib -= need.memory_mib
                disk_mib -= need.disk_mib
            else:
                queue -= 1
        return Room(
            *(cores, memory_mib, disk_mib, queue),
            *(wants.cores, wants.memory_mib, wants.disk_mib),
            *(self.capabilities.platform, self.cpu_flags, self.experiments),
        )

    def _taken(self) -> Iterator[Requirements]:
        for lease in self.leases.values():
            if lease.takes_room:
                yield lease.klass.requirements
        for doomed in self.doomed.values():
            yield doomed.needs
        for number, count in self.reserved.items():
            for _ in range(count):
                yield self.reserved_needs[number]

    def reserve(self, klass: RequirementClass) -> None:
        """A claim begins."""
        self.reserved[klass.id] += 1
        self.reserved_needs[klass.id] = klass.requirements

    def serves(self, experiment: str) -> bool:
        return self.experiments is None or experiment in self.experiments

    @property
    def idle(self) -> bool:
        """It holds nothing, and nothing is being claimed for it."""
        return not (self.leases or self.reserved)

    @property
    def takes_jobs(self) -> bool:
        ready = self.attached and not self.silent
        return ready and not (self.paused or self.leaving or self.draining or self.retired)

    def state(self, now: float, lease_seconds: float) -> PilotState:
        if self.retired or (self.departed and not self.attached):
            return PilotState.RETIRED
        if self.paused:
            return PilotState.PAUSED
        if self.seen is None or now - self.seen > lease_seconds:
            return PilotState.LOST
        if self.draining or self.leaving:
            return PilotState.DRAINING
        return PilotState.ALIVE


@dataclass(slots=True)
class Fleet:
    """All pilots that were heard of since the start, or hold leases from before."""

    pilots: dict[str, Pilot] = field(default_factory=dict)
    _flags: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)
    _wants: dict[Wants, Wants] = field(default_factory=dict)

    def get(self, pilot: str) -> Pilot | None:
        return self.pilots.get(pilot)

    def add(
        self, pilot: str, host: str, enrolment: str, launcher_key: str, capabilities: Capabilities
    ) -> Pilot:
        known = self.pilots.get(pilot)
        if known is None:
            flags = self.intern(capabilities.cpu_flags)
            known = Pilot(pilot, host, enrolment, launcher_key, capabilities, flags)
            self.pilots[pilot] = known
        return known

    def same(self, wants: Wants) -> Wants:
        """One object for all pilots that want the same."""
        if len(self._wants) > MOST_DIFFERENT:
            self._wants.clear()
        return self._wants.setdefault(wants, wants)

    def intern(self, flags: tuple[str, ...]) -> frozenset[str]:
        """Thousands of pilots share few sets."""
        if len(self._flags) >= MOST_SETS:
            self._flags.clear()
        return self._flags.setdefault(flags, frozenset(flags))

    def states(self, now: float, lease_seconds: float) -> Counter[PilotState]:
        return Counter(pilot.state(now, lease_seconds) for pilot in self.pilots.values())
