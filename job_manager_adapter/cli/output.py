"""Output for people (tables), programs (JSON) and shell pipes (ids only)."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from copilot_agent.protocol.errors import CopilotError

Mode = Literal["table", "json", "quiet"]
Model = TypeVar("Model", bound=BaseModel)
Columns = dict[str, Callable[[Model], object]]

STATE_STYLE = {
    "succeeded": "green",
    "running": "cyan",
    "leased": "cyan",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "draining": "yellow",
}
FREE_TEXT = {"NAME", "LABEL", "BANNED", "MESSAGE"}
"""Columns that give way where the terminal is narrow."""


def show_rows(
    rows: Sequence[Model],
    columns: Columns[Model],
    mode: Mode,
    key: Callable[[Model], str],
    *,
    console: Console | None = None,
) -> None:
    """Print many things of one kind; `key` is what `quiet` prints of each."""
    if mode == "json":
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    elif mode == "quiet":
        for row in rows:
            print(key(row))
    elif rows:
        _table(rows, columns, console or wide_console())
    else:
        print("none", file=sys.stderr)


def _table(rows: Iterable[Model], columns: Columns[Model], console: Console) -> None:
    """One line for each row; columns without any content are left out, free text is shortened."""
    cells = [[_cell(value(row)) for value in columns.values()] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = [number for number in range(len(columns)) if any(line[number] for line in cells)]
    titles = list(columns)
    for number in kept:
        free = titles[number] in FREE_TEXT
        table.add_column(titles[number], overflow="ellipsis", no_wrap=not free)
    for line in cells:
        for cell in line:
            cell.no_wrap, cell.overflow = True, "ellipsis"
        table.add_row(*(line[number] for number in kept))
    console.print(table)


def wide_console(*, stderr: bool = False) -> Console:
    """A terminal's own width; files and pipes get lines as long as they are."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=10_000)


def show_fields(model: BaseModel, fields: dict[str, object], mode: Mode, key: str) -> None:
    """Print one thing: a list of its fields, its JSON, or its key."""
    if mode == "json":
        print(model.model_dump_json(indent=2))
    elif mode == "quiet":
        print(key)
    else:
        console = wide_console()
        width = max(map(len, fields))
        for title, value in fields.items():
            if value not in (None, "", (), {}):
                console.print(Text(f"{title:{width}}  ", style="bold") + _cell(value))


def _cell(value: object) -> Text:
    """Text from outside is shown as text: no markup, control characters made visible."""
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        return Text(age(value))
    text = printable(str(value))
    return Text(text, style=STATE_STYLE.get(text, ""))


def printable(text: str) -> str:
    """Control characters other than newline and tab as escapes, so that no terminal obeys them."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def age(moment: datetime) -> str:
    """How long ago, in the largest fitting unit."""
    return f"{_span((datetime.now(UTC) - moment).total_seconds())} ago"


def ahead(moment: datetime) -> str:
    """How long it still is until then."""
    return _span((moment - datetime.now(UTC)).total_seconds() + 0.5)


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= 2 * length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def complain(error: CopilotError) -> None:
    """An error as people want it: what, where, what to do. On stderr."""
    console = wide_console(stderr=True)
    console.print(Text("error: ", style="bold red") + Text(printable(error.message)))
    for field in error.errors:
        console.print(Text(f"  {printable(field.field)}: {printable(field.message)}"))
    if error.remedy:
        console.print(Text(f"  → {printable(error.remedy)}"))


def is_terminal() -> bool:
    return sys.stdout.isatty()
