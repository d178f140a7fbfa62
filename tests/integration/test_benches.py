"""Every bench still runs, in sizes that measure nothing."""

from pathlib import Path

import pytest

from tests.bench import results, run
from tests.bench.frame import Bench, benches

WITH_A_VM = ("boinc",)
"""Tried by `tests/integration/boinc`."""


@pytest.mark.parametrize(
    "bench",
    [bench for bench in benches() if bench.name not in WITH_A_VM],
    ids=lambda bench: bench.name,
)
async def test_a_bench_runs(bench: Bench, tmp_path: Path) -> None:
    assert await run.one(bench, tmp_path, quick=True)
    found = results.read(tmp_path / results.FILE)
    assert [each.name for each in found if not results.belongs(each.name, bench.name)] == []
    assert found or bench.name == "peers"  # which need installing
