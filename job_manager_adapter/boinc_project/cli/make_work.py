"""`make-work`: enrolments and the workunits that bring them to launchers."""

import argparse
import contextlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.boinc_project.settings import (
    SettingsError,
    beside,
    load_settings,
    project_directory,
)
from job_manager_adapter.boinc_project.work import (
    Order,
    create_command,
    input_name,
    make_workunit,
    runner,
    secret_files,
    stage_command,
    template_results,
)

_EXAMPLES = """examples:
  make-work --count 100 --results 3 --expires 30d       with copilot-manager on this machine
  make-work --results 3 --secrets DIR                   secrets made on the manager's machine by
      copilot-manager enrolment create --count 100 --launchers 3 --directory DIR
  make-work --count 1 --results 3 --dry-run
  make-work --count 1 --results 3 -- --delay_bound 604800 --target_host 17

What follows -- goes to BOINC's create_work. Templates are the project's templates/copilot_in and
templates/copilot_out. A secret leaves its directory when its workunit is made; after a failure the
rest is still there for --secrets, and what was half done is not done twice.
copilot-manager is looked for beside the Python that runs make-work, then in PATH.
Exit codes: 0 fine, 1 something is wrong, 2 wrong flags, 130 interrupted.
"""
_MANAGER = "copilot-manager"
_OURS = "copilot-secrets-"
"""Begins the name of a directory with new secrets in the project's directory."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make-work",
        description="Make workunits, each with an enrolment secret of its own as input file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--count", type=_number, metavar="N", help="workunits, and new enrolments")
    source.add_argument("--secrets", type=Path, metavar="DIR", help="one for each secret in it")
    parser.add_argument(
        "--results", type=_number, required=True, metavar="R",
        help="that a workunit may have at most; each may be another host's",
    )  # fmt: skip
    parser.add_argument("--expires", default="30d", metavar="7d", help="default: 30d")
    parser.add_argument("--label", default="", help="of the enrolments")
    parser.add_argument("--manager", metavar="PROGRAM", help="default: copilot-manager, see below")
    parser.add_argument(
        "--manager-config", type=Path, metavar="FILE", help="for copilot-manager's --config"
    )
    parser.add_argument("--project", type=Path, metavar="DIR", help="default: bin/'s parent")
    parser.add_argument("--config", type=Path, metavar="FILE", help="as of receipt-check")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    parser.add_argument("extra", nargs="*", metavar="-- OPTION", help="options of create_work")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("a number from 1 to 10000")
    return int(text)


def manager_program(given: str | None) -> str:
    """Raises SettingsError if none is given and none runs."""
    if given:
        return str(Path(given).absolute()) if "/" in given else given
    beside = Path(sys.executable).parent / _MANAGER
    for program in (str(beside), _MANAGER):
        if _runs(program):
            return program
    raise SettingsError(
        f"{_MANAGER} runs neither in {beside.parent} nor from PATH",
        remedy="say --manager PROGRAM, or make secrets on the manager's machine for --secrets",
    )


def _runs(program: str) -> bool:
    """It is also there, and ends with an error, where the libraries of a manager are not."""
    try:
        return not subprocess.run([program, "--version"], capture_output=True).returncode
    except OSError:
        return False


def enrolment_command(args: argparse.Namespace, program: str, directory: Path) -> list[str]:
    config = ["--config", str(args.manager_config.absolute())] if args.manager_config else []
    label = [f"--label={args.label}"] if args.label else []
    return [
        program, *config, "enrolment", "create", "--count", str(args.count),
        "--launchers", str(args.results), f"--expires={args.expires}", *label,
        "--output", "quiet", "--directory", str(directory),
    ]  # fmt: skip


def show(args: argparse.Namespace, order: Order, project: Path) -> None:
    """What would be done; of enrolments that do not exist yet, one example."""
    if args.secrets:
        enrolments = list(secret_files(args.secrets))
    else:
        command = enrolment_command(args, args.manager or _MANAGER, project / f"{_OURS}…")
        print(shlex.join(command))
        enrolments = ["e-…"]
        print(f"# {args.count} times:")
    for enrolment in enrolments:
        name = input_name(enrolment, "<random>")
        print(shlex.join(stage_command(Path(name))))
        print(shlex.join(create_command(order, enrolment, name)))


def make(args: argparse.Namespace, order: Order, project: Path) -> int:
    """The number of workunits. Raises CopilotError; secrets without one stay where they are."""
    if args.secrets:
        return use(args.secrets, order, project)
    program = manager_program(args.manager)
    directory = Path(tempfile.mkdtemp(prefix=_OURS, dir=project))
    try:
        run = runner(project, remedy="say --manager PROGRAM")
        run(enrolment_command(args, program, directory))
    except BaseException:
        tidy(directory, project)
        raise
    return use(directory, order, project)


def use(directory: Path, order: Order, project: Path) -> int:
    """A workunit for each secret in the directory; their number. Raises CopilotError."""
    found = secret_files(directory)
    if not found:
        raise SettingsError(
            f"there is no secret in {directory}: such files are called <enrolment id>.secret",
            remedy="make them by: copilot-manager enrolment create --directory DIR",
        )
    run = runner(project)
    try:
        with tempfile.TemporaryDirectory(prefix="copilot-staging-", dir=project) as staging:
            for enrolment, secret in found.items():
                make_workunit(order, enrolment, secret, Path(staging), run)
                print(enrolment)
    finally:
        tidy(directory, project)
    return len(found)


def tidy(directory: Path, project: Path) -> None:
    """Tells of secrets that are left; removes a directory of ours with nothing in it."""
    if left := len(secret_files(directory)):
        print(f"make-work: secrets left in {directory}: {left}; see --secrets", file=sys.stderr)
    elif directory.name.startswith(_OURS) and directory.absolute().parent == project:
        with contextlib.suppress(OSError):  # something else is in it
            directory.rmdir()


def warn(order: Order, project: Path) -> None:
    allowed = template_results(project, order.app)
    if allowed not in (None, order.results) and "--wu_template" not in order.extra:
        print(
            f"make-work: warning: max_total_results is {allowed} in templates/{order.app}_in, but"
            f" --results {order.results}: a secret is good for as many launchers as --results"
            " says, so make both the same",
            file=sys.stderr,
        )


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    project = (args.project or project_directory()).absolute()
    try:
        settings = load_settings(args.config or beside(args.project))
        order = Order(settings.app, args.results, tuple(args.extra))
        warn(order, project)
        if args.dry_run:
            show(args, order, project)
        else:
            print(f"make-work: {make(args, order, project)} made", file=sys.stderr)
    except CopilotError as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        print(f"make-work: {error.message}{remedy}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"make-work: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
