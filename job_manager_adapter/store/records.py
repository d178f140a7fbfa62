"""What goes into a store and comes out of it. Times are Unix seconds.

Those that each job needs are not frozen, only by custom: making a frozen one takes four times as
long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Output, Requirements, Usage
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass

NO_USAGE = Usage()

# Jobs going in


@dataclass(slots=True)
class NewJob:
    id: str
    experiment: str
    name: str
    spec: bytes
    """The JobSpec as JSON, kept as it is."""
    requirements: Requirements
    priority: int
    max_attempts: int
    pause_seconds: float
    reference_cpu_seconds: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    upstream: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """All of it is stored, or nothing. The same (owner, key) with another digest is a conflict."""

    batch: str
    jobs: tuple[NewJob, ...]
    at: float
    owner: str = ""
    key: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs of one class and priority that may be claimed; `head` is the oldest one's sequence."""

    klass: RequirementClass
    priority: int
    count: int
    head: int


@dataclass(frozen=True, slots=True)
class Submitted:
    batch: str
    jobs: tuple[str, ...]
    created: bool
    waiting: tuple[Waiting, ...] = ()
    conflict: bool = False


# The life of an attempt


@dataclass(slots=True)
class Claim:
    """Up to `count` waiting jobs of a class for a pilot, by priority, then oldest."""

    pilot: str
    klass: int
    count: int
    at: float
    without: frozenset[str] = frozenset()
    """Jobs that are passed over."""


@dataclass(slots=True)
class Claimed:
    job: str
    sequence: int
    attempt: int
    klass: int
    priority: int
    pause_seconds: float
    reference_cpu_seconds: float | None
    spec: bytes
    at: float


@dataclass(frozen=True, slots=True)
class OpenLease:
    """A lease as it is read at the start."""

    job: str
    attempt: int
    pilot: str
    klass: int
    priority: int
    pause_seconds: float
    reference_cpu_seconds: float | None
    leased_at: float
    running: bool


@dataclass(frozen=True, slots=True)
class Start:
    job: str
    attempt: int
    pilot: str
    at: float


@dataclass(slots=True)
class SignedReceipt:
    """A receipt as it is written: what is counted of it, and its JSON."""

    id: str
    job: str
    experiment: str
    launcher: str
    """Its key."""
    granted: float
    cpu_seconds: float
    body: str

    @classmethod
    def of(cls, receipt: Receipt) -> "SignedReceipt":
        it, body = receipt.statement, receipt.model_dump_json(exclude_defaults=True)
        return cls(it.id, it.job, it.experiment, it.launcher, it.granted, it.cpu_seconds, body)


@dataclass(slots=True)
class Finish:
    """A report. The receipt counts only if the report is accepted."""

    pilot: str
    report: Report
    at: float
    receipt: SignedReceipt | None = None
    started_at: float | None = None
    """When the attempt began to run, where no `Start` said it before."""


@dataclass(slots=True)
class Finished:
    verdict: VerdictKind
    reason: str = ""
    state: JobState | None = None
    """The job's new state; None where nothing changed."""
    requeued: Waiting | None = None
    failures: int = 0
    """Of a requeued job: how often it has failed, if it is to rest before the next attempt."""


@dataclass(frozen=True, slots=True)
class Release:
    """Ends an attempt without a report: lost, given back, taken away."""

    job: str
    attempt: int
    failure_class: FailureClass
    message: str
    at: float
    overdue: bool = False
    """For want of word from its pilot, which only the manager that has the pilot can know."""


@dataclass(frozen=True, slots=True)
class Released:
    """`state` is None where the attempt had ended before."""

    job: str
    attempt: int
    pilot: str = ""
    state: JobState | None = None
    requeued: Waiting | None = None
    failures: int = 0
    """As in `Finished`."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A job that a user wants changed; `experiment` None: an operator, any will do."""

    job: str
    experiment: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`refusal` is empty if the job was cancelled now; `was` is its state before."""

    job: str
    refusal: str = ""
    experiment: str = ""
    was: JobState | None = None
    pilot: str | None = None
    attempt: int = 0
    waiting: Waiting | None = None
    """If it was waiting: the bucket that lost it."""


@dataclass(frozen=True, slots=True)
class Retried:
    job: str
    refusal: str = ""
    requeued: Waiting | None = None


# Jobs coming out


@dataclass(frozen=True, slots=True)
class JobRow:
    sequence: int
    id: str
    batch: str
    experiment: str
    name: str
    state: JobState
    attempt: int
    max_attempts: int
    charged: int
    uncharged: int
    priority: int
    klass: int
    pilot: str | None
    failure_class: FailureClass | None
    message: str
    submitted_at: float
    changed_at: float
    labels: Mapping[str, str]
    upstream: str | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    job: str
    attempt: int
    pilot: str
    host: str
    leased_at: float
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = None
    failure_class: FailureClass | None = None
    charged: bool = False
    accepted: bool = False
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    usage: Usage = NO_USAGE
    outputs: tuple[Output, ...] = ()
    granted: float | None = None
    late: Outcome | None = None
    """What a report said that came after the end, which counts for nothing."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    state: JobState | None = None
    experiment: str | None = None
    batch: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    newest: bool = False
    after: int | None = None
    """Sequence of the last job of the page before."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class UpstreamDue:
    """A job whose scheduler has not heard of its present state; `attempt` is the newest one."""

    job: str
    upstream: str
    state: JobState
    attempt: AttemptRow | None


# Tokens, the ledger, the journal


@dataclass(frozen=True, slots=True)
class TokenRow:
    id: str
    sha256: str
    role: str
    experiment: str | None
    label: str
    created_at: float
    expires_at: float | None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    granted: float
    receipts: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """Events `first` to `last` in one piece; what is in `body` is the event service's affair."""

    first: int
    last: int
    body: bytes


# News from the other managers of the same database


@dataclass(frozen=True, slots=True)
class NewsWaiting:
    """Jobs began to wait: rows of (class, priority, count, head)."""

    rows: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class NewsEnded:
    """An attempt of a pilot of ours was ended by another manager."""

    job: str
    attempt: int
    failure_class: str
    """Empty after a success."""


@dataclass(frozen=True, slots=True)
class NewsMoved:
    """A pilot of ours attached to another manager, with all that it holds."""

    pilot: str


@dataclass(frozen=True, slots=True)
class NewsRetired:
    """A pilot of ours was retired, or its host banned."""

    pilot: str


@dataclass(frozen=True, slots=True)
class NewsDrains:
    """The drains were changed."""


@dataclass(frozen=True, slots=True)
class NewsEvents:
    """The journal has grown, up to this number."""

    last: int


@dataclass(frozen=True, slots=True)
class NewsRecount:
    """Anything may have happened: news were lost, or an end of a transaction is unknown."""

    adopted: bool = False
    """Others took this manager for dead and its pilots for theirs."""


PeerNews = NewsWaiting | NewsEnded | NewsMoved | NewsRetired | NewsDrains | NewsEvents | NewsRecount
