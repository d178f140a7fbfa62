"""BOINC's view of the demo's task, in words and figures."""

import os
from pathlib import Path

from pydantic import ValidationError

from job_manager_adapter.cli.output import printable
from tests.harness.boinc.tasks import Task
from vm_launcher.drivers.base import Handle

_ERROR, _UPLOADING, _UPLOADED, _ABORTED = 3, 4, 5, 6
_STATES = {
    0: "is new",
    1: "downloads its files",
    2: "is ready to start",
    _ERROR: "failed",
    _UPLOADING: "uploads its receipts",
    _UPLOADED: "is ready to report",
    _ABORTED: "was aborted",
}


def trouble(task: Task) -> str:
    """Why it will not come to a good end while the demo waits; empty while it may."""
    if task.state in (_ERROR, _ABORTED):
        return f"the task ended with exit status {task.exit_status}"
    if task.waiting_for:
        return printable(f"the task is postponed: {task.waiting_for}")
    return ""


def task_words(task: Task | None, *, reported: bool, credit: float) -> tuple[str, str]:
    """One line of state, and one of details; `reported`: the project has its report."""
    if task is None:
        return ("reported", f"{credit:.4f} granted") if reported else ("has no task yet", "")
    state = f"is {task.process}" if task.process != "none" else _STATES.get(task.state, "")
    details = (
        f"{task.fraction_done:.2%} of its time · {task.cpu_seconds:.0f} CPU s, "
        f"{task.checkpoint_cpu_seconds:.0f} at the last checkpoint · "
        f"{task.elapsed_seconds:.0f} s elapsed · page {task.web_page or 'not yet'}"
    )
    return printable(f"{task.name} {state}"), printable(details)


def start_to_vm_seconds(launcher: int, state: Path) -> float | None:
    """From the client's start of the launcher to the launcher's of QEMU; None before that."""
    try:
        handle = Handle.model_validate_json((state / "handle.json").read_bytes())
        started = _start_ticks(launcher)
    except (OSError, ValidationError):
        return None
    if handle.process is None:
        return None
    return (handle.process.start_ticks - started) / os.sysconf("SC_CLK_TCK")


def _start_ticks(pid: int) -> int:
    """Field 22 of proc(5) stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
