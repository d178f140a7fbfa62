"""What an experiment asks for: the job, its needs, its files; and how an attempt can end."""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from copilot_agent.protocol.base import Bytes, Seconds, Sha256, Strict, Url, Wire
from copilot_agent.protocol.ids import ExperimentName


def _safe_path(value: str) -> str:
    """Relative POSIX path that stays where it is put; the remedy is in the message."""
    if not {"", ".", ".."}.isdisjoint(value.split("/")):
        raise ValueError(
            "must be a plain relative path such as 'data/events.lhe': no leading '/', '..' or '//'"
        )
    return value


FileName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=255,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}){0,7}$",
    ),
    AfterValidator(_safe_path),
]
"""Relative path in the payload's directory: letters, digits, `._+-`, 8 parts, none hidden."""

Argument = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._=:/+-]{0,127}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+$", max_length=40)]
CpuFlag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,24}$")]

STDOUT, STDERR = "stdout.log", "stderr.log"
"""Always among a job's outputs; reserved names."""


class Requirements(Strict):
    """What a pilot must offer for one job; the job then has exactly this for itself."""

    cores: Annotated[int, Field(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 256
    disk_mib: Annotated[int, Field(ge=1, le=1 << 24)] = 256
    platform: Platform = "linux/x86_64"
    cpu_flags: Annotated[tuple[CpuFlag, ...], Field(max_length=32)] = ()


class Limits(Strict):
    """Where a payload is stopped. Memory and disk limits are the requirements themselves."""

    run_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] = 3600
    """Run time in the guest; pauses do not count."""
    processes: Annotated[int, Field(ge=1, le=10_000)] = 256
    output_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """All declared outputs together."""
    log_mib: Annotated[int, Field(ge=1, le=1024)] = 10
    """Stdout and stderr each are cut in the middle beyond this; the payload goes on."""
    pause_seconds: Annotated[int, Field(ge=60, le=30 * 86400)] = 86400
    """How long a paused virtual machine may keep the job."""


class InputFile(Strict):
    """A file the payload finds in its directory; without `url` it is in the manager's store."""

    name: FileName
    sha256: Sha256
    size: Bytes
    url: Url | None = None
    unpack: bool = False
    """A zip, wheel or tar; `name` becomes a read-only directory, unpacked once per pilot."""


class OutputFile(Strict):
    name: FileName
    optional: bool = False


class JobSpec(Strict):
    """One job, as submitted. The body of `POST /api/v1/jobs` holds a list of these."""

    experiment: ExperimentName
    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=256)]
    """Program and arguments, started without a shell; a bare program name is found on PATH."""
    name: Label = "job"
    environment: Annotated[dict[VariableName, Argument], Field(max_length=128)] = Field(
        default_factory=dict
    )
    inputs: Annotated[tuple[InputFile, ...], Field(max_length=256)] = ()
    outputs: Annotated[tuple[OutputFile, ...], Field(max_length=256)] = ()
    requirements: Requirements = Requirements()
    limits: Limits = Limits()
    network: bool = False
    """Gives the payload a local proxy (HTTP_PROXY) to the launcher's allow-list."""
    reproducible: bool = True
    """Pins the CPU features that the C library uses, so that the same seed gives the same bits."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    reference_cpu_seconds: Annotated[float, Field(gt=0, le=1e8)] | None = None
    """If given, each succeeded attempt earns credit for exactly this CPU time."""
    labels: Annotated[dict[LabelKey, Label], Field(max_length=32)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if not self.command[0]:
            raise ValueError("command: the program's name is empty")
        if not (self.inputs or self.outputs):
            return self
        inputs = [file.name for file in self.inputs]
        outputs = [file.name for file in self.outputs]
        for kind, names in (("inputs", inputs), ("outputs", outputs)):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind}: every name may appear once")
        if taken := {STDOUT, STDERR}.intersection(inputs + outputs):
            raise ValueError(f"{', '.join(sorted(taken))}: reserved, always among the outputs")
        parents = {str(parent) for name in inputs for parent in PurePosixPath(name).parents}
        if clash := parents.intersection(inputs):
            raise ValueError(f"inputs: {min(clash)} is both a file and a directory")
        return self


class JobState(StrEnum):
    """Design, section 6."""

    WAITING = "waiting"  #: may be claimed
    LEASED = "leased"  #: offered to a pilot, not yet started
    RUNNING = "running"  #: a pilot says that the payload was started
    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: for good, kept as dead letter
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Phase(StrEnum):
    """Where an attempt is inside its pilot."""

    QUEUED = "queued"  #: held within the window, no slot yet
    STAGE_IN = "stage_in"
    RUNNING = "running"
    STAGE_OUT = "stage_out"
    REPORTING = "reporting"  #: the report is on disk and not yet answered


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  #: only the manager says so


class FailureClass(StrEnum):
    """Why an attempt did not succeed. `costs_attempt` says whether it counts against the job."""

    PAYLOAD = "payload"  #: exit code other than 0, death by signal, declared output missing
    PAYLOAD_LIMIT = "payload_limit"  #: memory, disk, processes, run time or output size exceeded
    STAGE_IN = "stage_in"
    STAGE_OUT = "stage_out"
    ENVIRONMENT = "environment"  #: program not found or not executable in this guest
    HOST = "host"  #: agent died, scratch broken: the host's fault
    VOLUNTEER_LEFT = "volunteer_left"
    PREEMPTED = "preempted"
    LEASE_LOST = "lease_lost"
    CANCELLED = "cancelled"
    ADAPTER = "adapter"
    UPSTREAM = "upstream"

    @property
    def costs_attempt(self) -> bool:
        return self in _COSTLY


_COSTLY = frozenset(
    {
        FailureClass.PAYLOAD,
        FailureClass.PAYLOAD_LIMIT,
        FailureClass.STAGE_IN,
        FailureClass.STAGE_OUT,
        FailureClass.ENVIRONMENT,
        FailureClass.LEASE_LOST,
    }
)


class Usage(Wire):
    """What an attempt used, measured in the guest."""

    wall_seconds: Seconds = 0.0
    cpu_seconds: Seconds = 0.0
    """As far as the host gave it, see docs/credit.md; this is also what is claimed for credit."""
    peak_memory_bytes: Bytes = 0
    disk_bytes: Bytes = 0
    stage_in_seconds: Seconds = 0.0
    stage_in_bytes: Bytes = 0
    stage_out_seconds: Seconds = 0.0
    stage_out_bytes: Bytes = 0


class Output(Wire):
    """An output as the pilot uploaded it."""

    name: FileName
    sha256: Sha256
    size: Bytes
