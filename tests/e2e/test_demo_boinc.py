"""The demo under the real BOINC client, small."""

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.demo.summary import BoincSummary
from tests.harness import programs
from tests.harness.demo import DemoProgram, as_it_should_be

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

SMALL = ("--boinc", "--jobs", "2", "--events", "4")


@pytest.fixture
def demo(
    repository: Path, cache: Path, launcher_file: Path, tmp_path: Path, temporary: Path
) -> DemoProgram:
    return DemoProgram(repository, cache, tmp_path / "out", temporary)


def nothing_left(demo: DemoProgram) -> None:
    assert programs.naming(demo.temporary) == []
    assert list(demo.temporary.iterdir()) == []


async def test_two_jobs_in_a_task_of_the_boinc_client(demo: DemoProgram) -> None:
    code, said = await demo.run(*SMALL)
    assert code == 0, said
    summary = BoincSummary.model_validate_json((demo.out / "summary.json").read_bytes())
    as_it_should_be(summary, demo)
    assert summary.boinc_exit_status == 0
    assert summary.boinc_credit_granted == pytest.approx(summary.credit_granted, abs=1e-6)
    assert summary.boinc_cpu_seconds > 1
    assert "2 of 2 jobs succeeded" in said
    for step in ("downloads its files", "is running", "uploads its receipts", "reported"):
        assert step in said
    assert "pilot retired" in (demo.out / "logs" / "launcher.log").read_text()
    nothing_left(demo)


async def test_ctrl_c_while_the_vm_runs_leaves_nothing(demo: DemoProgram) -> None:
    process = await demo.start(*SMALL)
    assert process.stdout is not None
    said = []
    async with asyncio.timeout(120):
        async for line in process.stdout:
            said.append(line.decode())
            if said[-1].endswith("VM running\n"):
                process.send_signal(signal.SIGINT)
    assert await process.wait() == 130, "".join(said)
    assert "everything was stopped" in said[-1]
    nothing_left(demo)
