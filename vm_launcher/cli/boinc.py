"""`vm-launcher boinc-task`: what the BOINC client starts."""

import argparse
import asyncio
from pathlib import Path

from vm_launcher.boinc import task
from vm_launcher.boinc.errors import InitDataError
from vm_launcher.boinc.init_data import FILE_NAME
from vm_launcher.cli.run import log_to_stderr

_EPILOG = """\
The BOINC client starts this in a slot of its own, with launcher.toml, the image's files and the
enrolment secret in it; nobody needs to start it by hand. Without BOINC: vm-launcher run

exit codes, as BOINC names them:
  0    receipts are to be uploaded, or the task wants to be started again
  1    this is no slot of a BOINC client, or what the client has put there cannot be read
  194  aborted by the client
  206  it cannot start here
  207  no job came
  208  no job succeeded
"""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "boinc-task",
        help="run as a task of the BOINC client",
        description="Runs one VM as a task of the BOINC client, in the current directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nthreads", type=_threads, metavar="N", help="processors of this task")
    parser.add_argument("--verbose", action="store_true", help="say more in stderr.txt")
    parser.set_defaults(run=run)


def _threads(text: str) -> int:
    try:
        number = float(text)  # the client writes 2.000000
    except ValueError:
        number = 0.0
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processors (1 to 256)")
    return int(number)


def run(parsed: argparse.Namespace) -> int:
    directory = Path.cwd()
    if not (directory / FILE_NAME).exists():
        raise InitDataError(
            f"this is no slot of a BOINC client: {FILE_NAME} is not there;"
            " the BOINC client starts this",
            remedy="without BOINC: vm-launcher run",
        )
    log_to_stderr("text", parsed.verbose)
    return asyncio.run(task.run(directory, parsed.nthreads))
