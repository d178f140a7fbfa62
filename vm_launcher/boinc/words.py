"""The task in words, for the volunteer's page."""

from collections.abc import Iterator

from vm_launcher.core.task import Task
from vm_launcher.state import Status

_STATES = {
    "absent": "starting",
    "booting": "the virtual machine boots",
    "restoring": "the virtual machine is loaded from disk",
    "pausing": "the virtual machine is being paused",
    "paused": "paused",
    "resuming": "going on",
    "saving": "the virtual machine is being saved to disk",
    "saved": "saved to disk",
    "stopping": "ending",
    "cleaning": "cleaning up",
    "waiting": "the virtual machine failed; it is started again soon",
    "gone": "ended",
}


def task_lines(task: Task, status: Status) -> Iterator[str]:
    yield _headline(task, status)
    for job in status.jobs:
        fraction = job.get("fraction")
        done = f", {fraction:.0%} done" if isinstance(fraction, float) else ""
        yield f"job {job.get('name') or 'without a name'} of {job.get('experiment')}{done}"
    yield f"{task.progress.jobs_succeeded} jobs succeeded, {task.progress.jobs_failed} failed"
    yield f"credit that the project's manager has signed for: {status.credit_granted:.2f}"
    yield f"{task.fraction:.1%} of this task's time is over"
    yield f"processor time: {task.meter.total:.0f} s; memory: {status.memory_bytes >> 20} MiB"
    traffic = status.network
    yield f"network: {_mb(traffic.get('bytes_in'))} in, {_mb(traffic.get('bytes_out'))} out"
    yield from status.messages[-5:]


def _headline(task: Task, status: Status) -> str:
    if task.suspended:
        return "Paused by BOINC"
    if status.state != "running":
        return _STATES.get(status.state, status.state).capitalize()
    if status.jobs_running:
        many = "a job" if status.jobs_running == 1 else f"{status.jobs_running} jobs"
        return f"Working on {many}"
    if status.guest_state == "connecting":
        return "Connecting to the manager"
    return task.waiting.capitalize() or "Getting work"


def _mb(count: object) -> str:
    return f"{count / 1e6:.1f} MB" if isinstance(count, int) else "0 MB"
