"""The command `vm-launcher`."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from copilot_agent.protocol.errors import CopilotError
from vm_launcher.cli import boinc, boinc_project, boinc_sign, commands, doctor, images, run
from vm_launcher.cli.exits import Exit, exit_of
from vm_launcher.images import ImageError

_EPILOG = """\
examples:
  vm-launcher doctor
  vm-launcher run --manager https://copilot.example.org --image /srv/image \\
      --image-key image-key.pub --enrolment-file secret --state ~/.copilot-launcher
  vm-launcher status --state ~/.copilot-launcher --watch
  vm-launcher save --state ~/.copilot-launcher     (the next run goes on with the VM)

exit codes:
  0  ended as asked: stopped, finished or saved
  1  error
  2  wrong usage or settings
  3  the image must not be booted (signature, expiry, age, damage)
  4  the VM cannot run on this host (no hypervisor, no space, no hello in time, failed too often)
  5  another launcher uses the state directory
  6  the pilot gave up, for example because its enrolment was refused
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (CopilotError, ImageError) as error:
        print(f"vm-launcher: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"  try: {error.remedy}", file=sys.stderr)
        return exit_of(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # as in `vm-launcher status | head`
        sys.stdout = None
        return Exit.ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vm-launcher",
        description="Runs one virtual machine with a pilot in it and keeps its credit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"vm-launcher {version('cloud-copilot')}"
    )
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run.add_parser(actions)
    commands.add_parsers(actions)
    doctor.add_parser(actions)
    images.add_parser(actions)
    boinc.add_parser(actions)
    boinc_project.add_parser(actions)
    boinc_sign.add_parser(actions)
    return parser
