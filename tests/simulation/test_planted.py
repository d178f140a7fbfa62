"""The simulation bites: each planted bug is found, and called by its name."""

from pathlib import Path

import pytest

from tests.simulation.planted import MOST_SCHEDULES, RIGHT, hunt, plant

BASE = 1


def test_every_patch_is_known(repository: Path) -> None:
    patches = {path.stem for path in (repository / "tests/faults/planted").glob("*.patch")}
    assert patches == set(RIGHT)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_planted_bug_is_found(name: str, repository: Path, tmp_path: Path) -> None:
    plant(repository, repository / f"tests/faults/planted/{name}.patch", tmp_path)
    count, failures = hunt(tmp_path, BASE, RIGHT[name])
    said = {invariant for each in failures.values() for invariant in each}
    print(f"{name}: after {count} schedules: {', '.join(sorted(said))}")
    assert RIGHT[name] in said, f"not found in {MOST_SCHEDULES} schedules; found: {failures}"
