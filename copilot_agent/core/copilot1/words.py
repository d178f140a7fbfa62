"""Events and effects of the conversation with original managers, its timers, and what is kept.

Times are the shell's monotonic seconds. A `key` is our own id of a job.
"""

from dataclasses import dataclass, fields
from typing import Literal, Self

from copilot_agent.protocol.base import Wire
from copilot_agent.protocol.copilot1.fields import Jid, JobName, MessageId, Text, WaitStatus
from copilot_agent.protocol.copilot1.job_commands import Command, RunJob
from copilot_agent.protocol.ids import JobId


@dataclass(frozen=True)
class Timers:
    """Seconds."""

    request_gap: float = 61.0
    """Between two requests of an account. Managers answer `sleep` within 60 s, by whole seconds."""
    retry: float = 60.0
    """The first pause after an unanswered broadcast; the following ones double."""
    answer: float = 60.0
    """For runJob after getJob."""
    storage_answer: float = 10.0
    """For storeJobOutputDir after getJobOutputDir."""
    resend: float = 60.0
    """The first pause before jobDone is sent again; the following ones double."""
    give_up: float = 86_400.0
    """Nothing that was said is repeated after so long."""

    def faster(self, factor: float) -> Self:
        """All of them divided by it."""
        return type(self)(*(getattr(self, each.name) / factor for each in fields(self)))


DOUBLINGS = 5
"""Of a pause: 60, 120, ... 1920 s, and 60 again."""


class Assignment(Wire):
    """A job that an original manager has given to us; kept on disk until it is done with."""

    key: JobId
    job: JobName
    """As the manager calls it."""
    giver: Jid
    job_data: Text | None = None
    storage: Jid = ""
    """Who named the place for the outputs; jobDone goes there."""
    validate_exit_status: WaitStatus | None = None
    exit_status: WaitStatus | None = None
    """None: it is not over."""
    done_id: MessageId = ""
    """Of jobDone, whose repetitions have the same."""
    told: bool = False
    """jobDone was acknowledged, or there is no hope that it will be."""


# ----- events


@dataclass(frozen=True)
class Online:
    """The account is logged in (again)."""


@dataclass(frozen=True)
class Unsent:
    """What was to be said under this id could not be: the account is not logged in."""

    id: str


@dataclass(frozen=True)
class Heard:
    sender: str
    command: Command
    file_there: bool = True
    """The file that have_getJob requires is in this guest."""


@dataclass(frozen=True)
class Garbled:
    """A runJob that cannot be taken; `job` is empty if not even its id can be read."""

    sender: str
    job: str
    reason: str


@dataclass(frozen=True)
class Acked:
    sender: str
    id: str


@dataclass(frozen=True)
class Bounced:
    """The server found nobody to give this message to."""

    id: str


@dataclass(frozen=True)
class Tick:
    pass


@dataclass(frozen=True)
class Room:
    """Whether the pilot wants a job."""

    free: bool


@dataclass(frozen=True)
class PlaceWanted:
    """The payload of this job is over, and its outputs want a place."""

    key: str
    validate_exit_status: int | None = None


@dataclass(frozen=True)
class Ended:
    """The pilot's report is on disk. Without a place for its outputs, one is asked for first."""

    key: str
    exit_status: int
    cpu_seconds: float


@dataclass(frozen=True)
class Explained:
    """Why there are no outputs lies where they would, or cannot be put there."""

    key: str


@dataclass(frozen=True)
class Forgotten:
    """The pilot knows that this job is done with."""

    key: str


Event = (
    Online
    | Unsent
    | Heard
    | Garbled
    | Acked
    | Bounced
    | Tick
    | Room
    | PlaceWanted
    | Ended
    | Explained
    | Forgotten
)


# ----- effects


@dataclass(frozen=True)
class Say:
    """`Unsent` follows if it cannot be said. The shell adds machine and host name."""

    to: str
    id: str
    command: Command


@dataclass(frozen=True)
class Take:
    """Keep the assignment on disk, then give the job to the pilot.

    Without `command` the pilot is to report that it failed, for `refusal`.
    """

    assignment: Assignment
    command: RunJob | None
    refusal: str = ""


@dataclass(frozen=True)
class Keep:
    """Write it over the earlier one on disk."""

    assignment: Assignment


@dataclass(frozen=True)
class Drop:
    """Remove it from the disk."""

    key: str


@dataclass(frozen=True)
class Place:
    """Outputs go to this Chirp server; `Explained` follows for a job that is over."""

    assignment: Assignment
    url: str


@dataclass(frozen=True)
class NoPlace:
    """The storage refuses the outputs."""

    key: str
    reason: str


@dataclass(frozen=True)
class Told:
    """The manager knows, or will never know (`given_up`), how the job ended."""

    key: str
    given_up: str = ""


@dataclass(frozen=True)
class Cancel:
    """The manager has given up this job."""

    key: str
    reason: str


@dataclass(frozen=True)
class Note:
    """A line for the log."""

    level: Literal["info", "warning", "error"]
    message: str


Effect = Say | Take | Keep | Drop | Place | NoPlace | Told | Cancel | Note


def bare(jid: str) -> str:
    return jid.partition("/")[0]
