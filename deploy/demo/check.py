"""How the demo's receipts can be checked by somebody who believes neither demo nor manager."""

import shlex
import sys
from pathlib import Path

from copilot_agent.protocol.receipt import Receipt

_CHECKER = Path(__file__).parents[1] / "boinc" / "receipt-check"


def check_command(out: Path) -> str:
    """Of a BOINC project's checker; all receipts of a demo are of one enrolment."""
    with (out / "receipts.jsonl").open() as lines:
        receipt = Receipt.model_validate_json(lines.readline())
    flags = ("--manager-key", _short(out / "manager.key"), "--print-credit")
    which = ("--enrolment", receipt.statement.enrolment, _short(out / "receipts.jsonl"))
    return shlex.join((_short(Path(sys.executable)), _short(_CHECKER), *flags, *which))


def _short(path: Path) -> str:
    """As seen from the current directory, where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
