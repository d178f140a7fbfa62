"""The plots of docs/measurements.md, drawn from results and nothing else."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.results import Result, belongs

SIZE = (7.0, 3.2)
OURS, THEIRS = "#1f6f8b", "#b8b8b8"
_DEPTH = re.compile(r"depth\.(\d+)-waiting-(\d+)-classes")
_FLEET = re.compile(r"fleet\.(\d+)-pilots")


def peers(results: Sequence[Result]) -> Figure | None:
    """Our cycles among the peers, as bars on a logarithmic axis."""
    ours = [each for each in results if belongs(each.name, "cycles") and each.unit == "/s"]
    theirs = [each for each in results if each.name.startswith("peers.") and each.unit == "/s"]
    if not ours or not theirs:
        return None
    bars = sorted([*ours, *theirs], key=lambda each: each.value)
    figure = Figure(figsize=(SIZE[0], 0.6 + 0.3 * len(bars)), layout="constrained")
    axes = figure.subplots()
    colours = [OURS if each in ours else THEIRS for each in bars]
    names = [each.name.removeprefix("peers.") for each in bars]
    drawn = axes.barh(names, values(bars), color=colours)
    axes.bar_label(drawn, [f"{each.value:,.0f}" for each in bars], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(min(values(bars)) / 3, max(values(bars)) * 3)
    axes.set_xlabel("jobs a second: this manager (dark) and its peers")
    return figure


def depth(results: Sequence[Result]) -> Figure | None:
    """CPU per claim against the number of waiting jobs, one line per number of classes."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for each in results:
        if (found := _DEPTH.fullmatch(each.name)) and each.cpu_us is not None:
            label = f"{int(found[2]):,} class{'' if found[2] == '1' else 'es'}"
            lines.setdefault(label, []).append((int(found[1]), each.cpu_us))
    return _lines(lines, "waiting jobs", "CPU per claim, µs")


def fleet(results: Sequence[Result]) -> Figure | None:
    """CPU per job against the number of pilots."""
    points = [
        (int(found[1]), each.cpu_us)
        for each in results
        if (found := _FLEET.fullmatch(each.name)) and each.cpu_us is not None
    ]
    return _lines({"": points} if points else {}, "pilots", "CPU per job, µs")


def _lines(lines: dict[str, list[tuple[int, float]]], x: str, y: str) -> Figure | None:
    if not lines:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for label, points in lines.items():
        across, up = zip(*sorted(points), strict=True)
        axes.plot(across, up, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if any(lines):
        axes.legend()
    return figure


def values(results: Sequence[Result]) -> list[float]:
    return [each.value for each in results]


DRAWN: dict[str, Callable[[Sequence[Result]], Figure | None]] = {
    "peers": peers,
    "depth": depth,
    "fleet": fleet,
}


def draw(results: Sequence[Result], directory: Path) -> list[Path]:
    """Writes those plots for which there are results; the same results give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    with mpl.rc_context({"svg.hashsalt": "copilot", "svg.fonttype": "none"}):
        for name, draw_one in DRAWN.items():
            if figure := draw_one(results):
                made.append(directory / f"{name}.svg")
                figure.savefig(made[-1], metadata={"Date": None})
    return made
