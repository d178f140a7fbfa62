"""Workunits, each with the enrolment secret that it brings to its launchers."""

import hashlib
import hmac
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
_MOST_SAID = 600
_RESULTS = re.compile(r"<max_total_results>\s*([0-9]{1,9})\s*</max_total_results>", re.ASCII)
_MOST_TEMPLATE = 1 << 20
Run = Callable[[Sequence[str]], None]
"""Runs a command in the project's directory. Raises CommandError, or SettingsError without one."""


class CommandError(SettingsError):
    """A program of the project's has failed; `said` is all that it had to say."""

    def __init__(self, program: str, code: int, said: str) -> None:
        super().__init__(f"{program} ended with {code}: {gist(said)}")
        self.said = said


def gist(said: str) -> str:
    """What a program said, of a traceback the last line only; at most 600 characters."""
    before, traceback, inside = said.partition("Traceback (most recent call last):")
    last = inside.strip().splitlines()[-1:] if traceback else []
    return "\n".join([*before.strip().splitlines(), *last])[:_MOST_SAID]


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


def input_name(enrolment: str, unguessable: str) -> str:
    """Of the input file. The download directory is public: who knows the name gets the file."""
    return f"{workunit_name(enrolment)}_{unguessable}"


def name_part(secret: str) -> str:
    """128 bits that tell nothing of the secret, and are the same when its workunit is made again:
    BOINC's stage_file leaves a file alone that is there already.
    """
    return hmac.digest(secret.encode(), b"name of the input file", hashlib.sha256)[:16].hex()


def template_results(project: Path, app: str) -> int | None:
    """What the input template of the application says; None where it says nothing."""
    try:
        with (project / "templates" / f"{app}_in").open(errors="replace") as file:
            found = _RESULTS.search(file.read(_MOST_TEMPLATE))
    except OSError:
        return None
    return int(found[1]) if found else None


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


def make_workunit(order: Order, enrolment: str, path: Path, staging: Path, run: Run) -> None:
    """Takes the secret out of its file's directory when all is done.

    After a failure or an interruption anywhere it can be repeated, and makes nothing twice.
    `staging` is a directory that only we may enter: what is staged must be readable for the
    project's web server, and keeps its mode when it is moved.
    """
    secret = read_secret(path)
    file = staging / input_name(enrolment, name_part(secret))
    file.write_text(f"{secret}\n")
    file.chmod(0o644)
    run(stage_command(file))
    try:
        run(create_command(order, enrolment, file.name))
    except CommandError as error:
        if not _there_already(error.said, enrolment):
            raise
    path.unlink()


def _there_already(said: str, enrolment: str) -> bool:
    """The database's words, as create_work repeats them: no two workunits have one name."""
    return f"Duplicate entry '{workunit_name(enrolment)}' for key" in said


def runner(project: Path, remedy: str = "say --project DIRECTORY") -> Run:
    """`remedy`: where the program is not there."""

    def run(command: Sequence[str]) -> None:
        try:
            done = subprocess.run(command, cwd=project, capture_output=True, check=False)
        except OSError as error:
            raise SettingsError(
                f"{command[0]} cannot be run in {project}: {error.strerror}", remedy=remedy
            ) from error
        if done.returncode:
            said = (done.stderr + done.stdout).decode(errors="replace")
            raise CommandError(command[0], done.returncode, said)

    return run
