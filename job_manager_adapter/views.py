"""What people and programs see of the manager: bodies of `/api/v1`, shared by api and client."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, FailFast, Field, StringConstraints, model_validator

from copilot_agent.protocol.base import Bytes, Line, Seconds, Sha256, Strict, Wire
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.ids import (
    BatchId,
    EnrolmentId,
    ExperimentName,
    HostId,
    JobId,
    PilotId,
    TokenId,
)
from copilot_agent.protocol.job import (
    FailureClass,
    FileName,
    JobSpec,
    JobState,
    Outcome,
    Phase,
    Usage,
)

MAX_SUBMIT = 1000
MAX_ENTRIES = 4000
"""Fields, variables, files and so on of one job together; more than any good job has."""
Item = TypeVar("Item")


def _not_flooded(job: Any) -> Any:
    """Stops at once at what would cost a message for each of a million wrong entries."""
    entries, level = 0, [job]
    for _ in range(3):  # the job, its fields, their items
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict | list):
                entries += len(part)
                if entries > MAX_ENTRIES:
                    raise ValueError(f"has more than {MAX_ENTRIES} entries; send fewer")
                below += part.values() if isinstance(part, dict) else part
        level = below
    return job


class Role(StrEnum):
    EXPERIMENT = "experiment"  #: submits and sees the jobs of its own experiment
    OPERATOR = "operator"  #: sees and does everything


class SubmitRequest(Strict):
    """`POST /api/v1/jobs`: all of it is stored, or nothing."""

    jobs: Annotated[
        tuple[Annotated[JobSpec, BeforeValidator(_not_flooded)], ...],
        FailFast(),
        Field(min_length=1, max_length=MAX_SUBMIT),
    ]
    """The first malformed one is told of, not those after it."""
    idempotency_key: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")] | None
    ) = None
    """The same key and body give the same jobs again; the same key and another body are refused."""

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_ENTRIES:
            raise ValueError("has fields without end")
        return data


class SubmitReply(Wire):
    batch: BatchId
    jobs: tuple[JobId, ...]
    created: bool = True
    """False if the idempotency key had been seen before."""


class OutputView(Wire):
    """One stored output; fetched at `GET /api/v1/jobs/{job}/outputs/{name}`."""

    name: FileName
    size: Bytes
    sha256: Sha256


class AttemptView(Wire):
    attempt: int
    pilot: PilotId | None = None
    host: HostId | None = None
    state: Literal["leased", "running", "ended"]
    outcome: Outcome | None = None
    failure_class: FailureClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    charged: bool = False
    """Whether it counts against `max_attempts`."""
    leased_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    usage: Usage = Usage()
    credit_granted: float | None = None
    late: Outcome | None = None
    """What a report said that came after the attempt's end; it counts for nothing."""
    phase: Phase | None = None
    fraction: float | None = None


class JobView(Wire):
    """One job. `attempts` and `outputs` are filled by `show`, not by `list`."""

    id: JobId
    batch: BatchId
    experiment: ExperimentName
    name: str
    state: JobState
    attempt: int = 0
    """Number of the newest attempt, 0 before the first."""
    max_attempts: int
    attempts_charged: int = 0
    failure_class: FailureClass | None = None
    message: str = ""
    phase: Phase | None = None
    fraction: float | None = None
    cpu_seconds: float | None = None
    pilot: PilotId | None = None
    submitted_at: datetime
    changed_at: datetime
    labels: dict[str, str] = {}
    spec: JobSpec | None = None
    attempts: tuple[AttemptView, ...] = ()
    outputs: tuple[OutputView, ...] = ()


class Page(Wire, Generic[Item]):
    items: tuple[Item, ...]
    next_cursor: str | None = None
    """Give it as `cursor` to go on; absent on the last page."""


class JobCounts(Wire):
    counts: dict[JobState, int]


class RequirementView(Wire):
    """How the fleet meets one requirement."""

    requirement: Line
    pilots_fit: int
    best_offer: Line = ""


class Explanation(Wire):
    """Answer to "why is it not running?" (`copilot job explain`)."""

    job: JobId
    state: JobState
    summary: str
    pilots_alive: int
    pilots_fit_now: int
    """Have room at this moment."""
    pilots_fit_idle: int
    """Would have room if they were idle."""
    requirements: tuple[RequirementView, ...] = ()
    waiting_ahead: int = 0
    next_step: str = ""


class LogView(Wire):
    """The live tail while running, afterwards the ends of the stored logs."""

    job: JobId
    attempt: int
    live: bool
    text: str


class PilotState(StrEnum):
    ALIVE = "alive"
    PAUSED = "paused"
    DRAINING = "draining"
    LOST = "lost"  #: no word for a lease's length
    RETIRED = "retired"


class PilotView(Wire):
    id: PilotId
    host: HostId
    state: PilotState
    carrier: Literal["websocket", "poll", "xmpp", "copilot1", ""] = ""
    capabilities: Capabilities
    jobs: tuple[JobId, ...] = ()
    drained_by: Literal["", "pilot", "host", "fleet"] = ""
    """Which drain keeps jobs away from it: its own, its host's or the fleet's."""
    drain_deadline: datetime | None = None
    jobs_succeeded: int = 0
    jobs_failed: int = 0
    enrolled_at: datetime
    seen_at: datetime | None = None


class HostView(Wire):
    id: HostId
    launcher_key: str
    enrolment: EnrolmentId
    label: str = ""
    draining: bool = False
    """It, or the whole fleet, was asked to."""
    drain_deadline: datetime | None = None
    banned: bool = False
    ban_reason: str = ""
    boots: int = 0
    pilots_alive: int = 0
    jobs_succeeded: int = 0
    credit_granted: float = 0.0
    seen_at: datetime | None = None


class DrainRequest(Strict):
    """Finish what is held and take no more; or, with `undo`, take jobs again."""

    deadline_seconds: Seconds | None = None
    """Then what still runs is given back and goes to others, uncharged. None: it may end."""
    undo: bool = False


class DrainView(Wire):
    """A drain that was asked for, and how far it has come."""

    of: Literal["pilot", "host", "fleet"]
    id: str = ""
    """The pilot's or the host's."""
    since: datetime
    deadline: datetime | None = None
    pilots_holding: int
    """Of those it covers: how many still hold jobs."""
    jobs_held: int


class FleetView(Wire):
    """`GET /api/v1/fleet`, from the manager's memory."""

    pilots: dict[PilotState, int]
    """By state; retired ones are not counted."""
    jobs_held: int
    drains: tuple[DrainView, ...] = ()


class BanRequest(Strict):
    reason: Line = ""
    undo: bool = False


class JobSelection(Strict):
    jobs: Annotated[tuple[JobId, ...], FailFast(), Field(min_length=1, max_length=MAX_SUBMIT)]


class Changed(Wire):
    """Which jobs an action changed, and why others were left alone."""

    changed: tuple[JobId, ...] = ()
    unchanged: dict[JobId, str] = {}


class UploadView(Wire):
    """State of a file in the store: `GET /api/v1/files/{sha256}`; HEAD gives it as headers."""

    sha256: Sha256
    size: Bytes
    offset: Bytes
    """Bytes that are safely here; go on from there."""
    complete: bool


class EnrolmentView(Wire):
    id: EnrolmentId
    label: str
    expires_at: datetime
    launchers_allowed: int
    hosts: tuple[HostId, ...] = ()
    revoked: bool = False
    secret: str | None = None
    """Only in the answer to its creation."""


class TokenView(Wire):
    id: TokenId
    role: Role
    experiment: ExperimentName | None = None
    label: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    revoked: bool = False
    token: str | None = None
    """Only in the answer to its creation."""


class WhoAmI(Wire):
    """`GET /api/v1/whoami`."""

    role: Role
    experiment: ExperimentName | None = None
    experiments: tuple[ExperimentName, ...]
    """Which the caller may submit to."""
    manager_version: str
    manager_key: str


class Event(Wire):
    """A line of the event stream `GET /api/v1/events` (server-sent events)."""

    id: int
    at: datetime
    kind: Literal["job", "pilot", "host", "fleet"]
    subject: str
    state: str
    experiment: ExperimentName | None = None
    detail: str = ""


class CreditView(Wire):
    """`GET /api/v1/credit`: sums of the ledger."""

    granted: float
    receipts: int
    cpu_seconds: float
    manager_key: str


class EnrolmentCreditView(Wire):
    """What jobs of one experiment earned with one enrolment."""

    enrolment: EnrolmentId
    experiment: ExperimentName
    label: str = ""
    """The enrolment's, for operators only: it may tell whose computer that is."""
    granted: float
    cpu_seconds: float
    receipts: int
    first_accepted_at: datetime
    last_accepted_at: datetime
