"""Tasks as the client shows them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.harness.boinc.xml import Element, number_of, text_of

_RUNNING, _SUSPENDED = 1, 9  # states of a process; 0 is "not there"
_QUIT_PENDING, _ABORT_PENDING = 8, 5
_WORDS = {_RUNNING: "running", _SUSPENDED: "suspended"} | {
    _QUIT_PENDING: "quitting",
    _ABORT_PENDING: "aborting",
}


@dataclass(frozen=True)
class Task:
    name: str
    project_url: str
    state: int
    """2 = files are here, 3 = computation error, 4 = uploading, 5 = uploaded, 6 = aborted"""
    process: str
    """running, suspended, quitting, aborting, or none"""
    pid: int
    slot: int
    fraction_done: float
    cpu_seconds: float
    checkpoint_cpu_seconds: float
    elapsed_seconds: float
    exit_status: int
    ready_to_report: bool
    suspended_by_user: bool
    waiting_for: str
    """Why it was postponed, in its own words."""
    web_page: str
    working_set_bytes: float
    scheduled: bool


def parse_task(element: Element) -> Task:
    active = element.find("active_task")
    has_process = active is not None
    active = active if active is not None else Element("active_task")
    state = int(number_of(active, "active_task_state"))
    return Task(
        name=text_of(element, "name"),
        project_url=text_of(element, "project_url"),
        state=int(number_of(element, "state")),
        process=_WORDS.get(state, "none") if has_process else "none",
        pid=int(number_of(active, "pid")),
        slot=int(number_of(active, "slot", -1)),
        fraction_done=number_of(active, "fraction_done"),
        cpu_seconds=number_of(active, "current_cpu_time"),
        checkpoint_cpu_seconds=number_of(active, "checkpoint_cpu_time"),
        elapsed_seconds=number_of(active, "elapsed_time"),
        exit_status=int(number_of(element, "exit_status")),
        ready_to_report=element.find("ready_to_report") is not None,
        suspended_by_user=element.find("suspended_via_gui") is not None,
        waiting_for=text_of(element, "scheduler_wait_reason"),
        web_page=text_of(active, "web_graphics_url"),
        working_set_bytes=number_of(active, "working_set_size"),
        scheduled=number_of(active, "scheduler_state") == 2,
    )
