"""The commands of a job's life, in their order; wire names are aliases.

An empty value means "undefined" to the original, and is taken as missing.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from copilot_agent.protocol.base import Line, Wire
from copilot_agent.protocol.copilot1.fields import (
    ChirpPath,
    ChirpUrl,
    FileName,
    FileNames,
    GuestPath,
    Jid,
    JobName,
    Packages,
    Text,
    WaitStatus,
)
from copilot_agent.protocol.copilot1.machine import Machine, machine_text, parse_machine
from copilot_agent.protocol.copilot1.tree import Tree, Writable
from copilot_agent.protocol.copilot1.wait_status import Ending, ending_of

MachineText = Annotated[
    Machine,
    BeforeValidator(lambda value: parse_machine(value) if isinstance(value, str) else value),
    PlainSerializer(machine_text),
]


class Part(Wire):
    """What commands and the job within have in common."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _undefined(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value != ""}


class Command(Part):
    noack: ClassVar[bool] = False
    """The originals send it without wanting an acknowledgement."""
    command: str


class WantJob(Command):
    """To every manager of an address."""

    command: Literal["want_getJob"] = "want_getJob"
    machine: MachineText = Field(Machine(), alias="jdl")
    agent_host: Line = Field("", alias="agentHost")


class HaveJob(Command):
    command: Literal["have_getJob"] = "have_getJob"
    require_file: GuestPath | None = Field(None, alias="requireFile")
    """An agent without this file stays silent, and gives up after four times."""


class Sleep(Command):
    """Makes an original agent reboot its machine after up to 20 minutes."""

    command: Literal["sleep"] = "sleep"


class GetJob(Command):
    """To the first manager that had one."""

    command: Literal["getJob"] = "getJob"
    machine: MachineText = Field(Machine(), alias="jdl")
    agent_host: Line = Field("", alias="agentHost")


class Job(Part):
    """`arguments` and `environment` are shell text as somebody wrote it."""

    id: JobName
    chirp_url: ChirpUrl = Field(alias="chirpUrl")
    input_dir: ChirpPath = Field("", alias="inputDir")
    input_files: FileNames = Field((), alias="inputFiles")
    command: FileName
    """Started as ./command in the job's directory."""
    arguments: Text = ""
    environment: Text = ""
    packages: Packages = ()
    output_dir: ChirpPath | None = Field(None, alias="outputDir")
    validation_script: FileName | None = Field(None, alias="validationScript")


class RunJob(Command):
    command: Literal["runJob"] = "runJob"
    job_data: Text | None = Field(None, alias="jmJobData")
    """The agent gives it back with every word about this job; see `job_data`."""
    job: Job


class _AboutJob(Command):
    job_id: JobName = Field(alias="jobID")
    agent_host: Line = Field("", alias="agentHost")
    job_data: Text | None = Field(None, alias="jmJobData")


class WantOutputDir(_AboutJob):
    """To every manager of an address."""

    command: Literal["want_getJobOutputDir"] = "want_getJobOutputDir"
    agent_ip: Line = Field("todo", alias="agentIP")
    """The original says "todo", literally."""


class HaveOutputDir(Command):
    command: Literal["have_getJobOutputDir"] = "have_getJobOutputDir"


class GetOutputDir(_AboutJob):
    command: Literal["getJobOutputDir"] = "getJobOutputDir"


class StoreOutputDir(Command):
    """The original agent ignores `output_dir` and stores ID/ID.tgz."""

    command: Literal["storeJobOutputDir"] = "storeJobOutputDir"
    output_dir: ChirpPath = Field("", alias="outputDir")
    output_chirp_url: ChirpUrl = Field(alias="outputChirpUrl")
    job_id: JobName = Field(alias="jobID")
    job_data: Text | None = Field(None, alias="jmJobData")
    """Takes the place of the earlier one."""


class JobDone(_AboutJob):
    command: Literal["jobDone"] = "jobDone"
    state: Line = "ready"
    exit_status: WaitStatus = Field(alias="exitCode")
    validate_exit_status: WaitStatus | None = Field(None, alias="validateExitCode")

    @property
    def ending(self) -> Ending:
        return ending_of(self.exit_status)


class Redirect(Command):
    """The agent sends `info` as a message of its own to `referral`, whatever is in it."""

    command: Literal["redirect"] = "redirect"
    referral: Jid
    info: Annotated[Tree, Writable()]


class ErrorCommand(Command):
    """The original agent ends after it."""

    command: Literal["error"] = "error"
    error_string: Text = Field("", alias="errorString")
