"""`make-work`: enrolments and the workunits that bring them to launchers."""

import argparse
import secrets
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.boinc_project.settings import load_settings, project_directory
from job_manager_adapter.boinc_project.work import (
    Order,
    create_command,
    input_name,
    make_workunit,
    runner,
    secret_files,
    stage_command,
)

_EXAMPLES = """examples:
  make-work --count 100 --results 3 --expires 30d       with copilot-manager on this machine
  make-work --results 3 --secrets DIR                   secrets made on the manager's machine by
      copilot-manager enrolment create --count 100 --launchers 3 --directory DIR
  make-work --count 1 --results 3 --dry-run
  make-work --count 1 --results 3 -- --delay_bound 604800 --target_host 17

What follows -- goes to BOINC's create_work. Templates are the project's templates/copilot_in and
templates/copilot_out. A secret leaves its directory when its workunit is made; after a failure the
rest is still there for --secrets. Exit codes: 0 fine, 1 something is wrong, 2 wrong flags.
"""


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
    parser.add_argument("--manager", default="copilot-manager", metavar="PROGRAM")
    parser.add_argument("--manager-config", metavar="FILE", help="for copilot-manager's --config")
    parser.add_argument("--project", type=Path, metavar="DIR", help="default: bin/'s parent")
    parser.add_argument("--config", type=Path, metavar="FILE", help="as of receipt-check")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    parser.add_argument("extra", nargs="*", metavar="-- OPTION", help="options of create_work")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("a number from 1 to 10000")
    return int(text)


def enrolment_command(args: argparse.Namespace, directory: Path) -> list[str]:
    config = ["--config", args.manager_config] if args.manager_config else []
    label = [f"--label={args.label}"] if args.label else []
    return [
        args.manager, *config, "enrolment", "create", "--count", str(args.count),
        "--launchers", str(args.results), f"--expires={args.expires}", *label,
        "--output", "quiet", "--directory", str(directory),
    ]  # fmt: skip


def show(args: argparse.Namespace, order: Order, project: Path) -> None:
    """What would be done; of enrolments that do not exist yet, one example."""
    if args.secrets:
        enrolments = list(secret_files(args.secrets))
    else:
        print(shlex.join(enrolment_command(args, project / "copilot-secrets-…")))
        enrolments = ["e-…"]
        print(f"# {args.count} times:")
    for enrolment in enrolments:
        name = input_name(enrolment, "<random>")
        print(shlex.join(stage_command(Path(name))))
        print(shlex.join(create_command(order, enrolment, name)))


def make(args: argparse.Namespace, order: Order, project: Path) -> int:
    """The number of workunits. Raises CopilotError; secrets without one stay where they are."""
    run = runner(project)
    directory = args.secrets
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="copilot-secrets-", dir=project))
        run(enrolment_command(args, directory))
    found = secret_files(directory)
    try:
        with tempfile.TemporaryDirectory(prefix="copilot-staging-", dir=project) as staging:
            for enrolment, secret in found.items():
                chance = secrets.token_hex(16)
                make_workunit(order, enrolment, secret, Path(staging), chance, run)
                print(enrolment)
    finally:
        left = len(secret_files(directory))
        if left:
            print(f"make-work: secrets left in {directory}: {left}; see --secrets", file=sys.stderr)
    if args.secrets is None:
        directory.rmdir()
    return len(found)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    project = args.project or project_directory()
    try:
        settings = load_settings(args.config)
        order = Order(settings.app, args.results, tuple(args.extra))
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
    return 0
