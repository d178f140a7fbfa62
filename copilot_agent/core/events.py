"""What can happen to a pilot. Times are the shell's monotonic seconds unless a name says wall.

A `jitter` is random in [0, 1), drawn by the shell for the pause that may follow.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from copilot_agent.protocol.frames import ManagerFrame, Policy, Report
from copilot_agent.protocol.job import FailureClass, Output, Usage


class TransportTrouble(StrEnum):
    """Why a connection ended; it decides what the pilot does next."""

    SUPERSEDED = "superseded"  #: a newer attach of the same pilot took over
    TOKEN = "token"  # noqa: S105 - expired or refused: renew, then connect again
    RETIRED = "retired"  #: retired or banned: do not come back
    UNREACHABLE = "unreachable"  #: try again later
    MALFORMED = "malformed"  #: one side sent what the other cannot read


class Key(NamedTuple):
    """One attempt of one job."""

    job: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.job}/{self.attempt}"


@dataclass(frozen=True)
class Started:
    """What an earlier agent of the same boot left on disk."""

    unfinished: tuple[Key, ...] = ()
    spooled: tuple[Report, ...] = ()


@dataclass(frozen=True)
class Tick:
    """The time asked for by `SetTimer` has come."""


@dataclass(frozen=True)
class Sample:
    key: Key
    usage: Usage
    fraction: float | None
    log_tail: str


@dataclass(frozen=True)
class Measured:
    """Answer to `Measure`."""

    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class ClockJumped:
    """Wall clock and monotonic clock went apart: the computer slept."""

    seconds: float


@dataclass(frozen=True)
class TokenObtained:
    pilot: str
    valid_seconds: float
    policy: Policy | None
    jitter: float = 0.5


@dataclass(frozen=True)
class Connected:
    jitter: float = 0.5


@dataclass(frozen=True)
class ConnectionLost:
    """Also a connection or a token that could not be had."""

    trouble: TransportTrouble
    message: str
    jitter: float
    wait_seconds: float = 0.0
    """At least so long, said the server."""


@dataclass(frozen=True)
class FrameReceived:
    frame: ManagerFrame


@dataclass(frozen=True)
class FrameSent:
    """The frame of this sequence number was handed to the system, or lost with the connection."""

    sequence: int


@dataclass(frozen=True)
class StagedIn:
    key: Key
    seconds: float
    moved_bytes: int


@dataclass(frozen=True)
class StageInFailed:
    key: Key
    message: str
    retryable: bool
    jitter: float = 0.5


@dataclass(frozen=True)
class StagingStopped:
    """Answer to `StopStaging`, unless the staging had just ended by itself."""

    key: Key


@dataclass(frozen=True)
class PayloadStarted:
    key: Key
    wall_time: float


@dataclass(frozen=True)
class PayloadEnded:
    """Comes exactly once for each `StartPayload`, also when it could not be started."""

    key: Key
    exit_code: int | None
    signal: int | None
    failure_class: FailureClass | None
    message: str
    usage: Usage


@dataclass(frozen=True)
class StagedOut:
    key: Key
    outputs: tuple[Output, ...]
    seconds: float


@dataclass(frozen=True)
class StageOutFailed:
    key: Key
    failure_class: FailureClass
    message: str
    retryable: bool
    jitter: float = 0.5


@dataclass(frozen=True)
class ReportSpooled:
    """The report is on disk; or it cannot be, then `problem` says why and it lives in memory."""

    key: Key
    problem: str = ""


@dataclass(frozen=True)
class LinksWanted:
    """The URLs of an attempt have run out."""

    key: Key


@dataclass(frozen=True)
class PauseSoon:
    seconds: float


@dataclass(frozen=True)
class Resumed:
    pass


@dataclass(frozen=True)
class DrainAsked:
    """By the launcher or the volunteer."""

    undo: bool = False
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class StopAsked:
    """Kill, report, wait at most `seconds` for the manager's verdicts, leave."""

    seconds: float
    failure_class: FailureClass = FailureClass.VOLUNTEER_LEFT


@dataclass(frozen=True)
class ReceiptsKept:
    ids: tuple[str, ...]


OwnEvent = Started | Tick | Measured | ClockJumped
LinkEvent = TokenObtained | Connected | ConnectionLost | FrameReceived | FrameSent
StagingEvent = StagedIn | StageInFailed | StagingStopped | StagedOut | StageOutFailed
PayloadEvent = PayloadStarted | PayloadEnded | ReportSpooled | LinksWanted
HostEvent = PauseSoon | Resumed | DrainAsked | StopAsked | ReceiptsKept
Event = OwnEvent | LinkEvent | StagingEvent | PayloadEvent | HostEvent
