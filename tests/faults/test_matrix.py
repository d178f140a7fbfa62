"""A dozen cells of the matrix, another dozen each time; `make faults` runs them all.

COPILOT_FAULTS_SEED=… draws the same dozen again.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import trial
from tests.faults.__main__ import line, run_all
from tests.faults.matrix import IMPOSSIBLE, Cell, Fault, Victim, cell, cells
from tests.faults.steps import MEANING, Step

SEED = int(os.environ.get("COPILOT_FAULTS_SEED") or random.SystemRandom().randrange(1_000_000))
WITHOUT_VM = 11


def drawn(*, in_a_vm: bool, count: int) -> list[Cell]:
    """None that last half a minute; other users than root can make no small disk."""
    possible = [each for each in cells() if each.in_a_vm is in_a_vm]
    possible = [each for each in possible if each.fault is not Fault.AWAY30S]
    if os.geteuid() != 0:
        possible = [each for each in possible if not each.needs_root]
    return random.Random(SEED).sample(possible, count)  # noqa: S311 - drawn again by its seed


async def check(
    wanted: Sequence[Cell], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        names = ", ".join(each.name for each in wanted)
        print(f"\n{len(wanted)} cells with COPILOT_FAULTS_SEED={SEED}: {names}")  # noqa: T201
    results = await run_all(wanted, SEED, directory)
    bad = [line(each) for each in results if not each.good]
    assert not bad, "\n".join(bad)
    assert len(results) == len(wanted)


async def test_eleven_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await check(drawn(in_a_vm=False, count=WITHOUT_VM), tmp_path, capsys)


@pytest.mark.vm
async def test_a_cell_with_a_vm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await check(drawn(in_a_vm=True, count=1), tmp_path, capsys)


@pytest.mark.parametrize("jobs", [1, 3])
async def test_cells_run_in_lanes_and_one_boots_vms_beside_them(
    jobs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    running: list[Cell] = []
    at_once: list[int] = []

    async def run(
        series: Sequence[Cell], seed: int, directory: Path, tell: trial.Tell
    ) -> list[trial.Result]:
        results = [trial.Result(each.name, seed) for each in series]
        for each, result in zip(series, results, strict=True):
            running.append(each)
            at_once.append(len(running))
            assert sum(one.in_a_vm for one in running) <= 1
            await asyncio.sleep(0)
            running.remove(each)
            tell(result)
        return results

    monkeypatch.setattr(trial, "run", run)
    wanted = list(cells())
    results = await run_all(wanted, 1, tmp_path, jobs)
    assert [one.cell for one in results] == [each.name for each in wanted]
    assert max(at_once) == jobs + 1
    assert f"[{len(wanted)}/{len(wanted)}] good" in capsys.readouterr().out.splitlines()[-1]


def test_every_victim_is_killed_at_every_step_or_it_is_said_why_not() -> None:
    victims = [victim for victim in Victim if victim is not Victim.LINK]
    killed = {(each.step, each.victim) for each in cells() if each.fault is Fault.KILL}
    assert killed.isdisjoint(IMPOSSIBLE)
    assert killed | set(IMPOSSIBLE) == {(step, victim) for step in Step for victim in victims}
    assert set(MEANING) == set(Step)


def test_a_cell_is_found_by_its_name() -> None:
    names = [each.name for each in cells()]
    assert len(set(names)) == len(names)
    assert [cell(name).name for name in names] == names
    with pytest.raises(ValueError, match="s13-agent-kill"):
        cell("s13-agent-kill")
