"""`make faults`: every cell of the matrix, or those that are named."""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults import trial
from tests.faults.matrix import IMPOSSIBLE, Cell, cell, cells
from tests.faults.steps import MEANING, Step

JOBS = min(4, len(os.sched_getaffinity(0)))
"""Lanes for cells without a VM; one process drives them all and carries their bytes."""
IN_A_WORLD = 12
"""So many cells with a VM share one; each looks at all its jobs, in a page of at most 100."""
EXAMPLES = """\
examples:
  python -m tests.faults                               every cell
  python -m tests.faults s5-agent-kill --seed 7        one cell, as it was with seed 7
  python -m tests.faults --only manager --no-vm        all of one victim or fault
  python -m tests.faults --jobs 1                      fewer at once, for a busy computer
"""


def _cell(name: str) -> Cell:
    try:
        return cell(name)
    except ValueError as error:  # argparse would leave out what it says
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="make faults",
        description="Breaks real processes at every step of a job's life, and looks what is left.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("cells", nargs="*", type=_cell, metavar="CELL", help="such as s5-agent-kill")
    top.add_argument("--seed", type=int, help="of what is left to chance; random, and printed")
    top.add_argument("--only", default="", metavar="WORD", help="cells with this in their name")
    top.add_argument("--no-vm", action="store_true", help="leave out the cells that boot a VM")
    top.add_argument(
        "--jobs",
        type=_count,
        default=JOBS,
        metavar="N",
        help="so many cells at once (default %(default)s), and one with a VM beside them",
    )
    top.add_argument("--list", action="store_true", help="print the cells' names")
    top.add_argument("--out", type=Path, default=Path("bench-out/faults.json"), metavar="FILE")
    return top


async def run_all(
    wanted: Sequence[Cell], seed: int, directory: Path, jobs: int = JOBS
) -> list[trial.Result]:
    """In `jobs` lanes, and one beside them for all that boot a VM; says how each cell went."""
    told, results = set[str](), list[trial.Result]()

    def tell(result: trial.Result) -> None:
        told.add(result.cell)
        print(f"[{len(told)}/{len(wanted)}] {line(result)}", flush=True)

    async def lane(worlds: Iterator[Sequence[Cell]]) -> None:
        for series in worlds:
            results.extend(await trial.run(series, seed, directory, tell))

    # not by victim: a launcher waits longer for each VM that it lost in a row
    booting = [each for each in wanted if each.in_a_vm]
    shared = [booting[start : start + IN_A_WORLD] for start in range(0, len(booting), IN_A_WORLD)]
    others = iter([[each] for each in wanted if not each.in_a_vm])
    async with asyncio.TaskGroup() as group:
        for worlds in (iter(shared), *[others] * jobs):
            group.create_task(lane(worlds))
    order = [each.name for each in wanted]
    return sorted(results, key=lambda one: order.index(one.cell))


def line(result: trial.Result) -> str:
    word = "good" if result.good else "BAD "
    text = f"{word} {result.cell:28} {result.seconds:5.1f} s {result.detail}"
    replay = f"\n    make faults CELL={result.cell} SEED={result.seed}"
    return text + "".join(f"\n    {one}" for one in result.violations) + replay * (not result.good)


def table(results: Sequence[trial.Result]) -> str:
    """A row a step, a column for each victim and fault."""
    columns = list(dict.fromkeys(one.cell.partition("-")[2] for one in results))
    by_name = {one.cell: one for one in results}
    lines = [" ".join(["step", *columns])]
    for step in Step:
        marks = []
        for column in columns:
            result = by_name.get(f"{step}-{column}")
            mark = "good" if result and result.good else "BAD" if result else "."
            marks.append(mark.center(len(column)))
        lines.append(" ".join([f"{step:4}", *marks]))
    return "\n".join(lines)


def summary(results: Sequence[trial.Result]) -> str:
    serving = [one for result in results for one in result.serving_seconds]
    again = [one for result in results for one in result.offered_again_seconds]
    bad = sum(not one.good for one in results)
    lines = [f"{len(results)} cells, {bad} bad"]
    if serving:
        lines.append(f"manager serving after a start: at most {max(serving):.2f} s")
    if again:
        lines.append(f"lost jobs leased again: at most {max(again):.2f} s after the fault")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    wanted = list(dict.fromkeys(options.cells)) or chosen(options.only, no_vm=options.no_vm)
    if options.list:
        print("\n".join(each.name for each in wanted))
        return 0
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"{len(wanted)} cells, seed {seed}, in {directory}", flush=True)
    results = asyncio.run(run_all(wanted, seed, directory, options.jobs))
    print(f"\n{table(results)}\n\n{summary(results)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report(results, seed), indent=1) + "\n")
    if all(one.good for one in results):
        directory.rmdir()
        return 0
    return 1


def chosen(word: str, *, no_vm: bool) -> list[Cell]:
    """Says so where some are left out."""
    found = [each for each in cells() if word in each.name and not (no_vm and each.in_a_vm)]
    if os.geteuid() == 0:
        return found
    print("left out, because only root can make small disks: the cells with -diskfull")
    return [each for each in found if not each.needs_root]


def report(results: Sequence[trial.Result], seed: int) -> dict[str, object]:
    impossible = {f"{step}-{victim}": why for (step, victim), why in IMPOSSIBLE.items()}
    return {
        "seed": seed,
        "steps": dict(MEANING),
        "impossible": impossible,
        "cells": [asdict(one) for one in results],
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; nothing is left running")
        sys.exit(130)
