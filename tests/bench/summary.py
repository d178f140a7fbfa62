"""Results for readers: a table for the terminal; table and plots in docs/measurements.md."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import plots
from tests.bench.results import Result

DOCUMENT = Path("docs/measurements.md")
IMAGES = "img"
BEGIN, END = "<!-- bench: begin, written by make bench -->", "<!-- bench: end -->"
HEAD = ("figure", "measured", "target", "", "beside it", "CPU per operation")
CAPTIONS = {
    "peers": "Jobs a second through this manager and its peers",
    "depth": "CPU per claim against the depth of the queue",
    "fleet": "CPU per job against the size of the fleet",
}


def number(value: float) -> str:
    """What tells something of it: 12,345 or 123 or 1.23 or 0.012."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def measure(value: float, unit: str) -> str:
    return number(value) if unit == "1" else f"{number(value)} {unit.replace('us', 'µs')}"


def row(result: Result) -> tuple[str, ...]:
    target = ""
    if result.target:
        ((kind, limit),) = result.target.items()
        target = f"{'≥' if kind == 'min' else '≤'} {number(limit)}"
    peer = result.peer or ""
    if result.peer_value is not None:
        peer = f"{number(result.peer_value)}: {peer}"
    cpu = f"{number(result.cpu_us)} µs" if result.cpu_us is not None else ""
    met = {True: "met", False: "MISSED", None: ""}[result.met]
    return (result.name, measure(result.value, result.unit), target, met, peer, cpu)


def table(results: Sequence[Result]) -> str:
    """For a terminal."""
    rows = [HEAD, *(row(each) for each in results)]
    widths = [max(len(each[column]) for each in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip()
        for each in rows
    )


def markdown(results: Sequence[Result]) -> str:
    rows = [HEAD, ("---",) * len(HEAD), *(row(each) for each in results)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in each)} |" for each in rows)


def computer() -> str:
    """What the figures were measured on, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d', time.gmtime())}, "
        f"load average at the end {os.getloadavg()[0]:.1f}"
    )


def write_documents(results: Sequence[Result], document: Path = DOCUMENT) -> None:
    """Replaces what stands between the markers. Raises ValueError if they are not there."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    drawn = plots.draw(results, document.parent / IMAGES)
    images = "\n\n".join(f"![{CAPTIONS[each.stem]}]({IMAGES}/{each.name})" for each in drawn)
    body = "\n\n".join(part for part in (f"{computer()}.", markdown(results), images) if part)
    document.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
