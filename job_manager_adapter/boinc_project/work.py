"""Workunits, each with the enrolment secret that it brings to its launchers."""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job_manager_adapter.boinc_project.names import workunit_name
from job_manager_adapter.boinc_project.settings import SettingsError

_FILE = re.compile(r"(e-[0-9a-hjkmnp-tv-z]{20})\.secret", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)
_MOST = 1000
"""Bytes of a file with a secret."""
Run = Callable[[Sequence[str]], None]
"""Runs a command in the project's directory. Raises SettingsError if it fails."""


@dataclass(frozen=True)
class Order:
    """What is to be made, but for the enrolments."""

    app: str
    results: int
    """That one workunit may have at most, and so the launchers that its secret is good for."""
    extra: tuple[str, ...] = ()
    """Further options of BOINC's create_work."""


def secret_files(directory: Path) -> dict[str, Path]:
    """By enrolment, as `copilot-manager enrolment create --directory` writes them."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise SettingsError(f"{directory}: {error.strerror}") from error
    return {found[1]: directory / name for name in names if (found := _FILE.fullmatch(name))}


def read_secret(path: Path) -> str:
    """Raises SettingsError, which does not quote the file."""
    with path.open("rb") as file:
        text = file.read(_MOST).decode("ascii", errors="replace").strip()
    if not _SECRET.fullmatch(text):
        raise SettingsError(
            f"{path} holds no enrolment secret",
            remedy="make them by: copilot-manager enrolment create --directory DIR",
        )
    return text


def input_name(enrolment: str, chance: str) -> str:
    """Of the input file. The download directory is public: `chance` must not be guessable."""
    return f"{workunit_name(enrolment)}_{chance}"


def stage_command(path: Path) -> list[str]:
    """Moves the file into the download directory."""
    return ["bin/stage_file", str(path)]


def create_command(order: Order, enrolment: str, file_name: str) -> list[str]:
    """One good result ends the workunit; as long as there is none, others are sent out."""
    limits = {
        "min_quorum": 1,
        "target_nresults": 1,
        "max_error_results": order.results,
        "max_total_results": order.results,
        "max_success_results": order.results,
    }
    options = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
    return [
        "bin/create_work", "--appname", order.app, "--wu_name", workunit_name(enrolment),
        *options, *order.extra, file_name,
    ]  # fmt: skip


def make_workunit(
    order: Order, enrolment: str, secret: Path, staging: Path, chance: str, run: Run
) -> None:
    """Takes the secret out of its file's directory when all is done.

    `staging` is a directory that only we may enter: what is staged must be readable for the
    project's web server, and keeps its mode when it is moved.
    """
    file = staging / input_name(enrolment, chance)
    file.write_text(f"{read_secret(secret)}\n")
    file.chmod(0o644)
    run(stage_command(file))
    run(create_command(order, enrolment, file.name))
    secret.unlink()


def runner(project: Path) -> Run:
    def run(command: Sequence[str]) -> None:
        try:
            done = subprocess.run(command, cwd=project, capture_output=True, check=False)
        except OSError as error:
            raise SettingsError(
                f"{command[0]} cannot be run in {project}: {error.strerror}",
                remedy="say --project DIRECTORY",
            ) from error
        if done.returncode:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()[-2000:]
            raise SettingsError(f"{command[0]} ended with {done.returncode}: {said}")

    return run
