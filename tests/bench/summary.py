"""Results for readers: a table for the terminal; table and plots in docs/measurements.md."""

from collections.abc import Sequence

from tests.bench.results import Result

HEAD = ("figure", "measured", "target", "", "beside it", "CPU per operation")


def number(value: float) -> str:
    """Three digits that tell something: 12,345 or 123 or 1.23 or 0.012."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def row(result: Result) -> tuple[str, ...]:
    target = ""
    if result.target:
        ((kind, limit),) = result.target.items()
        target = f"{'≥' if kind == 'min' else '≤'} {number(limit)}"
    peer = ""
    if result.peer is not None and result.peer_value is not None:
        peer = f"{number(result.peer_value)} {result.peer}"
    cpu = f"{number(result.cpu_us)} µs" if result.cpu_us is not None else ""
    met = {True: "met", False: "MISSED", None: ""}[result.met]
    return (result.name, f"{number(result.value)} {result.unit}", target, met, peer, cpu)


def table(results: Sequence[Result]) -> str:
    rows = [HEAD, *(row(each) for each in results)]
    widths = [max(len(each[column]) for each in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip()
        for each in rows
    )


def write_documents(results: Sequence[Result]) -> None:
    """Table and plots of a full run."""
