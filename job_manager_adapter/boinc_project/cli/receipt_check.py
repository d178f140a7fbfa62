"""`receipt-check`: the init script of BOINC's script_validator."""

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.boinc_project.checking import RefusedError, total
from job_manager_adapter.boinc_project.ledger import Ledger
from job_manager_adapter.boinc_project.settings import NAME, Settings, load_settings, public_keys
from job_manager_adapter.boinc_project.uploads import check_uploads

VALID, INVALID, TRANSIENT = 0, 1, 3
"""Exit codes as script_validator reads them: at TRANSIENT it tries again hours later."""

_EXAMPLES = """as script_validator calls it (it hands over nothing but these words: keys and ledger
stand in copilot-credit.toml in the project's directory):
  script_validator --app copilot --no_credit --init_script "receipt-check files"

by hand, which books nothing:
  receipt-check --manager-key KEY --print-credit upload/3f/copilot_e-…_0_r123_0
  receipt-check --manager-key manager.key --enrolment e-… --print-credit receipts.jsonl

Without --print-credit and --no-ledger it does as for the validator: what is good goes into the
ledger that copilot-credit.toml names.

exit codes: 0 valid, 1 invalid (stderr says which line and why), 3 cannot tell now: the file or the
ledger cannot be read, or something is wrong with the settings or the flags.
"""


class _Parser(argparse.ArgumentParser):
    """Wrong flags are the server's trouble: no volunteer's result may become invalid by them."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(TRANSIENT, f"receipt-check: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="receipt-check",
        description="Verify an uploaded file of receipts, one JSON document in each line.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="output files")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: see above")
    parser.add_argument(
        "--manager-key", action="append", default=[], metavar="KEY|FILE",
        help="public key of the manager, instead of manager_keys in the settings; several after a"
        " change of keys",
    )  # fmt: skip
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="refuse receipts counted before, book these"
    )
    parser.add_argument("--no-ledger", action="store_true", help="look into none, book nothing")
    parser.add_argument(
        "--enrolment", metavar="e-…", help="of the workunit, where the file's name does not tell it"
    )
    parser.add_argument(
        "--print-credit", action="store_true",
        help="the amount on stdout; nothing is booked but by --ledger",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> float:
    """The credit of the files. Raises RefusedError; everything else is the server's trouble."""
    settings = load_settings(args.config)
    keys = public_keys(tuple(args.manager_key) or settings.manager_keys)
    result, counted = check_uploads(args.files, keys, args.enrolment)
    amount = total(counted, settings.most_credit)
    if ledger := ledger_of(args, settings):
        Ledger(ledger).book(result, counted)
    elif not (args.no_ledger or args.print_credit):
        print(
            "receipt-check: warning: no ledger: receipts that another result brings again are"
            f" not noticed; set ledger in {NAME}, or say --ledger FILE or --no-ledger",
            file=sys.stderr,
        )
    return amount


def ledger_of(args: argparse.Namespace, settings: Settings) -> Path | None:
    """That of the settings is the validator's: who asks for an amount must name one himself."""
    if args.no_ledger:
        return None
    given: Path | None = args.ledger
    return given or (None if args.print_credit else settings.ledger)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        amount = run(args)
    except RefusedError as error:
        print(f"receipt-check: invalid: {error}", file=sys.stderr)
        return INVALID
    except CopilotError as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        print(f"receipt-check: {error.message}{remedy}", file=sys.stderr)
        return TRANSIENT
    except (OSError, sqlite3.Error) as error:
        print(f"receipt-check: cannot tell now: {error}", file=sys.stderr)
        return TRANSIENT
    if args.print_credit:
        print(f"{amount:.6f}")
    return VALID
