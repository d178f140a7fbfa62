"""The conversation between pilot and manager: one frame a direction, whatever carries it.

Frames carry arrays, so that one round trip can finish several jobs and ask for more. Reports are
idempotent by (job, attempt), commands and receipts by their id; the sender repeats them until the
other side reflects them. Offers are repeated until the pilot's `holding` names them. Everything
else may be lost.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import FailFast, Field, StringConstraints

from copilot_agent.protocol.base import Bytes, Line, Seconds, UnixTime, Url, Wire
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.ids import CommandId, JobId, ReceiptId
from copilot_agent.protocol.job import (
    FailureClass,
    FileName,
    JobSpec,
    Outcome,
    Output,
    Phase,
    Usage,
)
from copilot_agent.protocol.receipt import Receipt

MAX_FRAME_BYTES = 1 << 20
MAX_LOG_TAIL = 4096

AttemptNumber = Annotated[int, Field(ge=1, le=1_000_000)]
SessionNumber = Annotated[int, Field(ge=1, le=1 << 53)]
Text = Annotated[str, StringConstraints(max_length=2000)]


class Held(Wire):
    """An attempt that the pilot has; the whole list is in every frame from the pilot."""

    job: JobId
    attempt: AttemptNumber
    phase: Phase


class Wants(Wire):
    """Room the pilot gives to jobs now (totals, not what is left) and its window.

    The manager subtracts the leases that it knows itself, so a frame that crossed an offer does no
    harm. A draining pilot wants nothing.
    """

    cores: Annotated[int, Field(ge=0, le=1024)]
    memory_mib: Annotated[int, Field(ge=0, le=1 << 24)]
    disk_mib: Annotated[int, Field(ge=0, le=1 << 28)]
    window: Annotated[int, Field(ge=0, le=64)] = 0


class Progress(Wire):
    """News of one attempt."""

    job: JobId
    attempt: AttemptNumber
    phase: Phase
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """From the payload's file `.progress`, if it writes one."""
    cpu_seconds: Seconds = 0.0
    memory_bytes: Bytes = 0
    wall_seconds: Seconds = 0.0
    started_at: UnixTime | None = None
    """When the payload was started, in the pilot's clock; for people, nothing depends on it."""
    log_tail: Annotated[str, StringConstraints(max_length=MAX_LOG_TAIL)] | None = None


class Report(Wire):
    """How an attempt ended. Kept on the pilot's disk until a verdict comes."""

    job: JobId
    attempt: AttemptNumber
    outcome: Literal[Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED]
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: Annotated[int, Field(ge=1, le=64)] | None = None
    failure_class: FailureClass | None = None
    message: Text = ""
    usage: Usage = Usage()
    outputs: Annotated[tuple[Output, ...], FailFast(), Field(max_length=300)] = ()


class LinkRequest(Wire):
    """Asks for fresh URLs of an attempt whose own have run out."""

    job: JobId
    attempt: AttemptNumber


class PilotFrame(Wire):
    """Pilot → manager. `session` is empty in the first frame of an attach."""

    version: Literal[1] = 1
    session: SessionNumber | None = None
    sequence: Annotated[int, Field(ge=0, le=1 << 53)] = 0
    wants: Wants
    holding: Annotated[tuple[Held, ...], FailFast(), Field(max_length=2000)] = ()
    progress: Annotated[tuple[Progress, ...], FailFast(), Field(max_length=2000)] = ()
    reports: Annotated[tuple[Report, ...], FailFast(), Field(max_length=200)] = ()
    link_requests: Annotated[tuple[LinkRequest, ...], FailFast(), Field(max_length=200)] = ()
    paused: bool = False
    """True from a pause's announcement until the first frame after it."""
    draining: bool = False
    leaving: bool = False
    """The pilot stops: so in its last frames, until it attaches again."""
    capabilities: Capabilities | None = None
    commands_done: Annotated[tuple[CommandId, ...], FailFast(), Field(max_length=1000)] = ()
    receipts_kept: Annotated[tuple[ReceiptId, ...], FailFast(), Field(max_length=1000)] = ()


class InputLink(Wire):
    name: FileName
    url: Url
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Bytes
    unpack: bool = False


class OutputLink(Wire):
    """Where one output goes: `PUT url?offset=N`; see docs/protocol.md, files."""

    name: FileName
    url: Url
    max_bytes: Bytes
    optional: bool = False


class Offer(Wire):
    """A lease on one attempt. The attempt number is the fence."""

    job: JobId
    attempt: AttemptNumber
    spec: JobSpec
    lease_seconds: Seconds
    """Runs out this long after the last frame that named the attempt among `holding`."""
    inputs: Annotated[tuple[InputLink, ...], FailFast(), Field(max_length=256)] = ()
    outputs: Annotated[tuple[OutputLink, ...], FailFast(), Field(max_length=300)] = ()


class Links(Wire):
    """Answer to a `LinkRequest`."""

    job: JobId
    attempt: AttemptNumber
    inputs: Annotated[tuple[InputLink, ...], FailFast(), Field(max_length=256)] = ()
    outputs: Annotated[tuple[OutputLink, ...], FailFast(), Field(max_length=300)] = ()


class VerdictKind(StrEnum):
    ACCEPTED = "accepted"  #: committed; also the answer to a repeated report
    SUPERSEDED = "superseded"  #: a newer attempt exists or the job has ended; recorded, not counted
    REJECTED = "rejected"  #: unknown job, not this pilot's, or outputs not there; `reason` says why


class Verdict(Wire):
    job: JobId
    attempt: AttemptNumber
    verdict: VerdictKind
    reason: Text = ""


class CommandKind(StrEnum):
    CANCEL = "cancel"  #: kill the payload of (job, attempt), report `cancelled`
    ABANDON = "abandon"  #: the lease is gone: kill the payload, report nothing
    DRAIN = "drain"  #: finish what runs, give back what has not begun, want nothing more
    UNDRAIN = "undrain"
    RETIRE = "retire"  #: kill everything, report it, leave
    RENEW_TOKEN = "renew_token"  # noqa: S105 - a verb, no secret


class Command(Wire):
    id: CommandId
    kind: CommandKind
    job: JobId | None = None
    attempt: AttemptNumber | None = None
    deadline_seconds: Seconds | None = None
    reason: Line = ""


class Policy(Wire):
    """The manager's clockwork for a pilot."""

    heartbeat_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 30.0
    lease_seconds: Annotated[float, Field(ge=0.5, le=86400)] = 300.0
    reconnect_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    """First pause after a lost connection, half of it by chance; longer ones follow, up to 60 s."""


class ManagerFrame(Wire):
    """Manager → pilot."""

    version: Literal[1] = 1
    session: SessionNumber
    acknowledges: Annotated[int, Field(ge=0, le=1 << 53)] = 0
    """The `sequence` of the newest frame that this one has taken into account."""
    server_time: UnixTime
    offers: Annotated[tuple[Offer, ...], FailFast(), Field(max_length=64)] = ()
    verdicts: Annotated[tuple[Verdict, ...], FailFast(), Field(max_length=200)] = ()
    commands: Annotated[tuple[Command, ...], FailFast(), Field(max_length=1000)] = ()
    receipts: Annotated[tuple[Receipt, ...], FailFast(), Field(max_length=200)] = ()
    links: Annotated[tuple[Links, ...], FailFast(), Field(max_length=200)] = ()
    policy: Policy | None = None
