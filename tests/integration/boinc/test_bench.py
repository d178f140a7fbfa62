"""The bench of this part still runs, in a size that measures nothing."""

from pathlib import Path

import pytest

from tests.bench import frame, results, run

pytestmark = [pytest.mark.vm, pytest.mark.boinc]


async def test_the_bench_runs(tmp_path: Path, launcher_file: Path) -> None:
    bench = frame.find("boinc")
    assert await run.one(bench, tmp_path, quick=True)
    found = {each.name: each for each in results.read(tmp_path / results.FILE)}
    assert found["boinc.single_file"].value == round(launcher_file.stat().st_size / 1e6, 1)
    assert found["boinc.start_worst"].value > 0
    assert found["boinc.launcher_memory"].value > 1
