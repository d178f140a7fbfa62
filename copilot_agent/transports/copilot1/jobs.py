"""What a job of an original manager becomes here: a job specification and a script."""

from dataclasses import dataclass
from shlex import quote

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.copilot1.job_commands import Job
from copilot_agent.protocol.job import JobSpec, Limits, Requirements

EXPERIMENT = "copilot1"
WRAPPER = "_wrapper_.sh"
VALIDATED = "_validated_"
"""The exit code of the validation, as its shell has it."""
VALIDATE_OUTPUTS = ("validate_stdout", "validate_stderr")
STDOUT, STDERR = "stdout", "stderr"
"""Their names among the outputs."""
NO_PACKAGES = 125
LOG_MIB = 256
"""What these jobs print is often all that they make."""


@dataclass(frozen=True)
class Terms:
    """What such jobs get, as they ask for nothing themselves: the whole pilot, within limits.

    Of the disk it is half, as the archive of all outputs needs as much again.
    """

    capabilities: Capabilities
    run_seconds: int = 86_400
    network: bool = False
    packages_command: str = ""
    """A program of the guest that prints a package's settings, as `alienv print NAME/VERSION`."""

    @property
    def requirements(self) -> Requirements:
        offered = self.capabilities
        return Requirements(
            cores=min(offered.cores, 256),
            memory_mib=min(offered.memory_mib, 1 << 20),
            disk_mib=max(1, min(offered.disk_mib // 2, 1 << 24)),
            platform=offered.platform,
        )


def specification(name: str, terms: Terms) -> JobSpec:
    return JobSpec(
        experiment=EXPERIMENT,
        name=name,
        command=("/bin/sh", WRAPPER),
        requirements=terms.requirements,
        limits=Limits(run_seconds=terms.run_seconds, log_mib=LOG_MIB),
        network=terms.network,
        max_attempts=1,
    )


def refusal(job: Job, terms: Terms) -> str:
    """Why this job cannot be run here, with the remedy; empty if it can."""
    if job.packages and not terms.packages_command:
        return (
            f"packages: {job.packages[0]} is wanted, and this agent has no packages; "
            "start it with --packages-command, or send the job elsewhere"
        )
    if taken := {WRAPPER, VALIDATED, *VALIDATE_OUTPUTS, STDOUT, STDERR} & set(job.input_files):
        return f"inputFiles: {min(taken)} is the name of a file that the agent makes"
    return ""


def script(job: Job, terms: Terms) -> str:
    """Run by the payload's own shell, in its confinement.

    Arguments and environment are the manager's shell text and are meant to be; names are checked.
    """
    lines = ["#!/bin/sh"]
    for package in job.packages:
        program, name = quote(terms.packages_command), quote(_package_name(package))
        lines.append(f"settings=$({program} print {name}) || exit {NO_PACKAGES}")
        lines.append('eval "$settings"')
    lines.append(job.environment)
    lines.append(f"chmod a+x {job.command}")
    lines.append(f"./{job.command} {job.arguments}")
    if job.validation_script:
        lines += _validation(job.validation_script)
    return "\n".join(lines) + "\n"


def _validation(program: str) -> list[str]:
    stdout, stderr = VALIDATE_OUTPUTS
    return [
        "status=$?",
        f"(chmod a+x {program} && ./{program}) >{stdout} 2>{stderr}",
        f"echo $? >{VALIDATED}",
        "exit $status",
    ]


def _package_name(package: str) -> str:
    """VO_X@Name::Version -> Name/Version."""
    return package.partition("@")[2].replace("::", "/", 1) or package.replace("::", "/", 1)
