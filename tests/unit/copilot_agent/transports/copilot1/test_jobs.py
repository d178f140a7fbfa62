"""What a job of an original manager becomes here."""

import subprocess
from pathlib import Path

import pytest

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.copilot1.job_commands import Job
from copilot_agent.transports.copilot1.jobs import Terms, refusal, script, specification

OFFERED = Capabilities(cores=4, memory_mib=8000, disk_mib=10_000)


def job(**more: object) -> Job:
    return Job.model_validate({"id": "x", "chirp_url": "h:1", "command": "run.sh"} | more)


def ran(given: Job, terms: Terms, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "wrapper").write_text(script(given, terms))
    return subprocess.run(
        ["/bin/sh", "wrapper"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.sh").write_text('#!/bin/sh\necho "$# $*"\nexit 7\n')
    return tmp_path


def test_a_job_gets_the_whole_pilot_but_half_of_the_disk() -> None:
    spec = specification("job-1", Terms(OFFERED, run_seconds=60))
    needs = spec.requirements
    assert (needs.cores, needs.memory_mib, needs.disk_mib) == (4, 8000, 5000)
    assert OFFERED.fits(needs)
    assert spec.limits.run_seconds == 60
    assert not spec.network


def test_arguments_and_environment_are_shell_text_as_ever(folder: Path) -> None:
    given = job(arguments="a 'b c' $X", environment="X=1\nexport Y=2")
    end = ran(given, Terms(OFFERED), folder)
    assert (end.stdout, end.returncode) == ("3 a b c 1\n", 7)


def test_a_program_that_is_not_there_ends_as_the_shell_says(folder: Path) -> None:
    assert ran(job(command="none"), Terms(OFFERED), folder).returncode == 127


def test_a_package_that_cannot_be_set_up_ends_the_job_before_it_begins(folder: Path) -> None:
    terms = Terms(OFFERED, packages_command="/bin/false")
    end = ran(job(packages="VO_X@Root::v5"), terms, folder)
    assert (end.stdout, end.returncode) == ("", 125)


@pytest.mark.parametrize(
    ("package", "name"), [("VO_X@Root::v5::1", "Root/v5::1"), ("Root::v5", "Root/v5")]
)
def test_packages_are_named_as_their_command_wants(folder: Path, package: str, name: str) -> None:
    command = folder / "it's here"
    command.write_text('#!/bin/sh\necho "set -- $1 $2; echo \\$2"\n')
    command.chmod(0o755)
    end = ran(job(packages=package), Terms(OFFERED, packages_command=str(command)), folder)
    assert end.stdout.splitlines()[0] == name


def test_a_validation_does_not_change_how_the_job_ended(folder: Path) -> None:
    (folder / "check").write_text("#!/bin/sh\necho bad >&2\nexit 5\n")
    end = ran(job(validation_script="check"), Terms(OFFERED), folder)
    assert end.returncode == 7
    assert (folder / "_validated_").read_text() == "5\n"
    assert (folder / "validate_stderr").read_text() == "bad\n"


def test_what_cannot_be_run_is_refused_with_the_remedy() -> None:
    terms = Terms(OFFERED)
    assert refusal(job(), terms) == ""
    assert "--packages-command" in refusal(job(packages="X@Y::1"), terms)
    assert refusal(job(packages="X@Y::1"), Terms(OFFERED, packages_command="/x")) == ""
    assert "_validated_" in refusal(job(input_files="_validated_"), terms)
