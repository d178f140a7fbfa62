"""How a BOINC task ends, and BOINC's numbers for it."""

from enum import Enum

from vm_launcher.core.events import End, Outcome
from vm_launcher.core.task_events import Ending, Finish, Leave, Postpone
from vm_launcher.core.task_progress import Progress

ABORTED = 194
INIT_FAILURE = 206
NO_SUB_TASKS = 207
SUB_TASK_FAILURE = 208
"""Exit codes of BOINC's own list, made for tasks that fetch their own work.

The client shows no message of a task whose code is not 0: its reason is in stderr.txt only, which
goes with the report (measured with 7.20.5).
"""

HOUR = 3600.0
DAY = 86400.0


class Exit(Enum):
    """What the task wants to become of itself."""

    QUIT = "quit"
    ABORT = "abort"
    IDLE = "idle"
    FINISH = "finish"


def ending_of(wanted: Exit | None, end: End, progress: Progress, postponed: Postpone) -> Ending:
    """`postponed` is how an idle task leaves."""
    saved = end.outcome is Outcome.SAVED
    if wanted is Exit.ABORT:
        return Leave(ABORTED)
    if wanted is Exit.QUIT:
        return Leave(saved=saved)
    if end.no_space:
        return Postpone(HOUR, f"{end.message}. Try: make room there", notice=True)
    if wanted is Exit.IDLE and end.outcome is not Outcome.FAILED:
        return postponed
    return _finish(end, progress)


def _finish(end: End, progress: Progress) -> Finish:
    if progress.receipts:
        return Finish(0, end.message if end.outcome is Outcome.FAILED else "")
    if end.outcome is Outcome.FAILED:
        return Finish(INIT_FAILURE, _sentence(end), notice=True)
    if progress.jobs_failed:
        many = progress.jobs_failed
        return Finish(SUB_TASK_FAILURE, f"none of {many} jobs succeeded", notice=True)
    return Finish(NO_SUB_TASKS, "no job came")


def _sentence(end: End) -> str:
    return f"{end.message}. Try: {end.remedy}" if end.remedy else end.message
