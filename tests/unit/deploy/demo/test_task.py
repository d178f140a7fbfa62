"""BOINC's view of the demo's task, in words and figures."""

import os
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.demo.task import start_to_vm_seconds, task_words, trouble
from tests.harness.boinc.tasks import parse_task
from tests.harness.boinc.xml import parse
from vm_launcher.drivers.base import Handle, ProcessMark, VmSpec

TASK = replace(
    parse_task(parse("<result><name>copilot_e-1_0</name></result>")),
    fraction_done=0.1234,
    cpu_seconds=56.4,
    elapsed_seconds=60.0,
)


def words(**changes: object) -> str:
    return task_words(replace(TASK, **changes), reported=False, credit=0.0)[0]  # type: ignore[arg-type]


def test_a_task_that_runs_with_its_figures() -> None:
    running = replace(TASK, state=2, process="running", web_page="http://localhost:8")
    state, details = task_words(running, reported=False, credit=0.0)
    assert state == "copilot_e-1_0 is running"
    assert "12.34% of its time" in details
    assert "56 CPU s" in details
    assert "http://localhost:8" in details


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": 1}, "downloads its files"),
        ({"state": 2}, "is ready to start"),
        ({"state": 2, "process": "suspended"}, "is suspended"),
        ({"state": 4}, "uploads its receipts"),
        ({"state": 5}, "is ready to report"),
    ],
)
def test_states_in_words(changes: dict[str, object], says: str) -> None:
    assert words(**changes) == f"copilot_e-1_0 {says}"


def test_before_and_after_the_task() -> None:
    assert task_words(None, reported=False, credit=0.0) == ("has no task yet", "")
    assert task_words(None, reported=True, credit=1.5) == ("reported", "1.5000 granted")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": 2}, ""),
        ({"state": 3, "exit_status": 206}, "the task ended with exit status 206"),
        ({"state": 5}, ""),
        ({"state": 6, "exit_status": 203}, "the task ended with exit status 203"),
        ({"state": 2, "waiting_for": "no QEMU\x1b[1m"}, r"the task is postponed: no QEMU\x1b[1m"),
    ],
)
def test_what_the_demo_does_not_wait_for(changes: dict[str, object], says: str) -> None:
    assert trouble(replace(TASK, **changes)) == says  # type: ignore[arg-type]


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_the_time_to_qemus_start_is_told_once_there_is_one(tmp_path: Path) -> None:
    me = os.getpid()
    assert start_to_vm_seconds(me, tmp_path) is None
    spec = VmSpec(
        name="vm",
        directory=tmp_path,
        ctrl_socket=tmp_path / "ctrl",
        net_socket=tmp_path / "net",
        kernel=tmp_path,
        initrd=tmp_path,
        command_line="",
        image_sha256="0" * 64,
    )
    handle = Handle(driver="qemu", spec=spec)
    (tmp_path / "handle.json").write_text(handle.model_dump_json())
    assert start_to_vm_seconds(me, tmp_path) is None
    started = ticks(me) + 2 * os.sysconf("SC_CLK_TCK")
    mark = ProcessMark(pid=me, start_ticks=started, token=str(uuid4()))
    (tmp_path / "handle.json").write_text(
        handle.model_copy(update={"process": mark}).model_dump_json()
    )
    assert start_to_vm_seconds(me, tmp_path) == 2.0
