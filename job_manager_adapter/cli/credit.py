"""`copilot credit …`: what was granted, and to whom."""

import argparse
import contextlib
import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, get_args

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.output import Columns, age, counted, show_rows
from job_manager_adapter.cli.times import moment
from job_manager_adapter.client import Client
from job_manager_adapter.client.credit_groups import By, CreditGroup, group_rows, label_words
from job_manager_adapter.views import EnrolmentCreditView

_EXAMPLES = """examples:
  copilot credit show --by user --since 7d
  copilot credit show --by team --since 2026-01-01 --until 2026-02-01
  copilot credit export --file credit.csv

An enrolment is labelled by `copilot-manager enrolment create --label "host=17 user=4 team=2"`.
One whose label has no such word is a group of its own. Labels are shown to operators only.
Credit is in BOINC's unit, cobblestones: 200 are a day of a reference core.
"""
_FORMULA = frozenset("=+-@＝＋－＠")
"""With one of these in front a spreadsheet reads a cell as a formula."""
_TIME = "2026-01-31, 2026-01-31T12:00Z, or how long ago: 12h, 7d"
_FIELDS = (
    "enrolment", "label", "host", "user", "team", "experiment", "granted", "cpu_seconds",
    "receipts", "first_accepted_at", "last_accepted_at",
)  # fmt: skip


def rounded(amount: float) -> str:
    """Two digits behind the point, or as many as show two of a small amount's: 0.0032."""
    small = 0 < amount < 1
    return f"{amount:.{min(max(1 - math.floor(math.log10(amount)), 2), 9) if small else 2}f}"


GROUPS: Columns[CreditGroup] = {
    "LABEL": lambda group: group.group,
    "CREDIT": lambda group: rounded(group.granted),
    "CPU HOURS": lambda group: rounded(group.cpu_seconds / 3600),
    "JOBS": lambda group: group.receipts,
    "ENROLMENTS": lambda group: group.enrolments,
    "FIRST": lambda group: age(group.first_accepted_at),
    "LAST": lambda group: age(group.last_accepted_at),
}


def add_parser(nouns: Any) -> None:
    text = "what was granted, and to whom"
    verbs = nouns.add_parser("credit", help=text).add_subparsers(required=True, metavar="VERB")
    show = _verb(verbs, "show", "sums of the ledger, the largest first", show_credit)
    show.add_argument("--by", choices=get_args(By), default="label", help="default: label")
    export = _verb(verbs, "export", "a line for each enrolment and experiment", export_credit)
    export.add_argument("--format", choices=["csv", "json"], default="csv", help="default: csv")
    export.add_argument("--file", type=Path, metavar="FILE", help="default: stdout")


def _verb(verbs: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--since", type=moment, metavar="TIME", help=f"accepted from: {_TIME}")
    parser.add_argument("--until", type=moment, metavar="TIME", help="accepted before")
    return parser


async def show_credit(args: argparse.Namespace, client: Client) -> int:
    rows = await _rows(args, client)
    groups = group_rows(rows, args.by)
    show_rows(groups, GROUPS, args.output, lambda group: group.group)
    if args.output == "table" and groups:
        granted = sum(group.granted for group in groups)
        jobs = counted(sum(group.receipts for group in groups), "job")
        print(f"{rounded(granted)} credits for {jobs}", file=sys.stderr)
    return 0


async def export_credit(args: argparse.Namespace, client: Client) -> int:
    rows = await _rows(args, client)
    records = [_record(row) for row in rows]
    with _target(args.file) as file:
        if args.format == "json":
            json.dump(records, file, indent=2)
            file.write("\n")
        else:
            write_csv(records, file)
    return 0


async def _rows(args: argparse.Namespace, client: Client) -> list[EnrolmentCreditView]:
    since, until = args.since, args.until
    if since and until and since >= until:
        raise CopilotError(
            f"--since {since:%Y-%m-%d %H:%M} is not before --until {until:%Y-%m-%d %H:%M} (UTC)",
            remedy="no receipt can be in between: exchange them, or leave one out",
        )
    return [row async for row in client.credit.by_enrolment(since=since, until=until)]


def _record(row: EnrolmentCreditView) -> dict[str, object]:
    """The fields of an export. Later versions may add some behind these, and change none."""
    values = row.model_dump(mode="json") | {"host": "", "user": "", "team": ""}
    values |= label_words(row.label)
    return {name: values[name] for name in _FIELDS}


def write_csv(records: list[dict[str, object]], file: IO[str]) -> None:
    """Texts that a spreadsheet would take for a formula get an apostrophe in front."""
    writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _cell(value) for name, value in record.items()})


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    flat = "".join(char if char.isprintable() else " " for char in value)
    return f"'{flat}" if flat.lstrip()[:1] in _FORMULA else flat


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[IO[str]]:
    """A file is there as a whole or not at all."""
    if path is None:
        yield sys.stdout
        return
    partial = path.parent / f"{path.name}.partial"
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise CopilotError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # its directory is not there
            partial.unlink()
