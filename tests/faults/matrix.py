"""Which cells there are: step × victim × fault; and which there cannot be, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.steps import Step


class Victim(StrEnum):
    PAYLOAD = "payload"
    AGENT = "agent"
    MANAGER = "manager"
    DATABASE = "database"
    VM = "vm"
    LAUNCHER = "launcher"
    LINK = "link"


class Fault(StrEnum):
    KILL = "kill"  #: SIGKILL; what is supervised is started again at once
    GONE = "gone"  #: SIGKILL, and back only at the end; another one is there instead
    STOP60S = "stop60s"
    STOP10MIN = "stop10min"
    PART1S = "part1s"
    PART60S = "part60s"
    PART10MIN = "part10min"
    PART10MIN_UP = "part10min-up"  #: only what the pilot says is held up
    PART10MIN_DOWN = "part10min-down"
    DISKFULL = "diskfull"
    AWAY30S = "away30s"  #: shut down for half a minute of real time, which is ten leases


SCALE, SCALE_IN_A_VM = 100, 30
"""Everything in minutes runs this many times as fast: leases of 300 s last 3 s, in a VM 10 s."""
SECONDS = {
    Fault.STOP60S: 60,
    Fault.STOP10MIN: 600,
    Fault.PART1S: 1,
    Fault.PART60S: 60,
    Fault.PART10MIN: 600,
    Fault.PART10MIN_UP: 600,
    Fault.PART10MIN_DOWN: 600,
}
SHORT = {Fault.STOP60S, Fault.PART1S, Fault.PART60S}
"""Costs nobody a lease."""
LONG = {fault for fault, seconds in SECONDS.items() if seconds > 300} | {Fault.GONE}
"""Longer than a lease: a second pilot comes, so that there is one to be offered the jobs."""

IN_A_VM = {Victim.VM, Victim.LAUNCHER}
NO_PAYLOAD = "there is no payload yet"
PAYLOAD_ENDED = "the payload has ended"
IMPOSSIBLE = {
    (step, Victim.PAYLOAD): NO_PAYLOAD if number < 4 else PAYLOAD_ENDED
    for number, step in enumerate(Step)
    if step is not Step.RUNNING
}


@dataclass(frozen=True)
class Clockwork:
    """The default settings in the cell's scale, in seconds."""

    lease: float
    heartbeat: float
    grace: float
    fault: float
    """How long it lasts."""


@dataclass(frozen=True)
class Cell:
    step: Step
    victim: Victim
    fault: Fault

    @property
    def name(self) -> str:
        return f"{self.step}-{self.victim}-{self.fault}"

    @property
    def in_a_vm(self) -> bool:
        return self.victim in IN_A_VM

    @property
    def two_managers(self) -> bool:
        """On one PostgreSQL: the victim and one that is there in its place."""
        return self.victim is Victim.MANAGER and self.fault is Fault.GONE

    @property
    def clockwork(self) -> Clockwork:
        scale = SCALE_IN_A_VM if self.in_a_vm else SCALE
        fault = 30.0 if self.fault is Fault.AWAY30S else SECONDS.get(self.fault, 0) / scale
        return Clockwork(lease=300 / scale, heartbeat=30 / scale, grace=30 / scale, fault=fault)

    @property
    def needs_root(self) -> bool:
        """For a disk of its own."""
        return self.fault is Fault.DISKFULL and not self.in_a_vm


def cell(name: str) -> Cell:
    """Raises ValueError that says what is wrong with the name."""
    for each in cells():
        if each.name == name:
            return each
    raise ValueError(f"there is no cell {name!r}; --list names them all")


def cells() -> Iterator[Cell]:
    for step in Step:
        for victim, fault in _COLUMNS:
            if (step, victim) not in IMPOSSIBLE and step in _STEPS.get((victim, fault), Step):
                yield Cell(step, victim, fault)


_COLUMNS = (
    *((victim, Fault.KILL) for victim in Victim if victim is not Victim.LINK),
    (Victim.AGENT, Fault.GONE),
    (Victim.MANAGER, Fault.GONE),
    *(
        (victim, fault)
        for victim in Victim
        if victim is not Victim.LINK
        for fault in (Fault.STOP60S, Fault.STOP10MIN)
    ),
    *((Victim.LINK, fault) for fault in Fault if fault.startswith("part")),
    *((victim, Fault.DISKFULL) for victim in (Victim.AGENT, Victim.MANAGER, Victim.VM)),
    (Victim.DATABASE, Fault.AWAY30S),
)

_BOOTED = (Step.RUNNING, Step.UPLOADING, Step.CREDITED)
"""Steps at which whole VMs are stopped; a boot takes a quarter of a minute."""
_STEPS: dict[tuple[Victim, Fault], tuple[Step, ...]] = {
    **{
        (victim, fault): _BOOTED for victim in IN_A_VM for fault in (Fault.STOP60S, Fault.STOP10MIN)
    },
    (Victim.VM, Fault.DISKFULL): (Step.RUNNING,),
    (Victim.AGENT, Fault.DISKFULL): (Step.STAGE_IN, Step.RUNNING, Step.EXITED, Step.UPLOADED),
}
