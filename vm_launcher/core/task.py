"""A BOINC task's decisions: what the client says and the VM does, in; what is to be done, out.

No clock, no I/O. The VM's own life is `vm.Vm`'s; here it is only asked. What the task wants to
become of itself (`_exit`) is kept apart from the VM's way there: when the VM has ended, `_exit`
says how the process leaves.

| the client, or the task   | the VM is asked to           | the process then            |
|---------------------------|------------------------------|-----------------------------|
| suspend, resume           | pause, resume                | goes on                     |
| quit, client gone         | save, by force after a while | leaves, to be started again |
| abort                     | stop, by force soon          | leaves for good             |
| no job for minutes        | save                         | asks to be started later    |
| no job for hours, time up | finish its jobs, then stop   | finishes                    |
"""

from dataclasses import dataclass
from typing import assert_never

from vm_launcher.core import task_events as ev
from vm_launcher.core.events import Ask, Outcome, Say
from vm_launcher.core.states import State
from vm_launcher.core.task_endings import Exit, ending_of
from vm_launcher.core.task_progress import JobCount, Meter, Progress

IDLE_REASON = "waiting for work, your processor is free"
UNREACHED_REASON = "the manager cannot be reached, your processor is free"
_WAITING = {"idle": IDLE_REASON, "connecting": UNREACHED_REASON}
_SUSPENDED = "suspended by BOINC"
_NEVER = float("-inf")
_THROTTLES = 3
"""Short pauses in a row: nobody suspends a task so often by hand."""


@dataclass(frozen=True)
class TaskRules:
    """Seconds, where nothing else is said."""

    task_seconds: float = 86400.0
    """How long the VM runs in one task."""
    grace_seconds: float = 3600.0
    """How much longer, for the jobs that run then."""
    idle_seconds: float = 300.0
    """Without a job, until the VM is saved and the client asked for another start …"""
    idle_exit_seconds: float = 600.0
    """… after this time."""
    idle_end_seconds: float = 14400.0
    """Of wall time without a job, until the task ends."""
    most_receipts: int = 10_000
    """With so many the task ends before its time: one upload does not hold many more."""
    checkpoint_seconds: float = 300.0
    """At least so long between two checkpoints."""
    trickle_seconds: float | None = None
    """Between two trickles; None where credit comes from the uploaded receipts."""
    short_pause_seconds: float = 10.0
    """Shorter pauses are not announced to the manager."""
    save_seconds: float = 45.0
    """The client kills what is still there 60 s after a quit."""
    stop_seconds: float = 7.0


class Task:
    """`handle` takes events one at a time; a `Looked` comes every second."""

    def __init__(self, rules: TaskRules, progress: Progress, meter: Meter) -> None:
        self.progress = progress
        self.meter = meter
        self.waiting = ""
        """Why the VM has nothing to do, for the volunteer; empty while it has."""
        self.suspended = False
        self._rules = rules
        self._exit: Exit | None = None
        self._force_at: float | None = None
        """When an exit that is under way is forced."""
        self._finish_by = 0.0
        """In running seconds."""
        self._held_until: float | None = None
        self._short_pauses = 0
        """In a row."""
        self._resumed_at = self._checkpointed_at = _NEVER
        self._looked_at: float | None = None
        self._trickled_at: float | None = None
        self._idle_seconds = 0.0
        self._jobs = JobCount()
        self._checkpoint_due = False

    @property
    def fraction(self) -> float:
        """Below 1 until the task is over."""
        return min(self.progress.running_seconds / self._rules.task_seconds, 0.999)

    def handle(self, event: ev.TaskEvent, now: float) -> list[ev.TaskEffect]:
        match event:
            case ev.Suspend():
                return self._suspend(now)
            case ev.Resume():
                return self._resume(now)
            case ev.Quit(reason):
                return self._quit(reason, now)
            case ev.Abort():
                return self._abort(now)
            case ev.FinishSoon():
                self.progress.finish_soon = True
                return []
            case ev.Looked(view, wall):
                return self._look(view, wall, now)
            case ev.VmEnded():
                return self._ended(event)
            case _:
                assert_never(event)

    # What the client says

    def _suspend(self, now: float) -> list[ev.TaskEffect]:
        if self.suspended or self._leaving:
            return []
        self.suspended = True
        if now - self._resumed_at < self._rules.short_pause_seconds:
            # A client that throttles by suspending does it every second or so.
            self._short_pauses += 1
            self._held_until = now + self._rules.short_pause_seconds
            return [ev.HoldVm(held=True)]
        return [ev.AskVm(Ask.PAUSE, _SUSPENDED)]

    def _resume(self, now: float) -> list[ev.TaskEffect]:
        if not self.suspended or self._leaving:
            return []
        self.suspended, self._resumed_at = False, now
        return self._let_go() or [ev.AskVm(Ask.RESUME)]

    def _quit(self, reason: str, now: float) -> list[ev.TaskEffect]:
        if self._leaving:
            return []
        return self._leave(Exit.QUIT, ev.AskVm(Ask.SAVE, reason), now + self._rules.save_seconds)

    def _abort(self, now: float) -> list[ev.TaskEffect]:
        if self._exit is Exit.ABORT:
            return []
        stop = ev.AskVm(Ask.STOP, "aborted by BOINC")
        return self._leave(Exit.ABORT, stop, now + self._rules.stop_seconds)

    @property
    def _leaving(self) -> bool:
        """A task that only finishes its jobs may still be suspended, or told to quit."""
        return self._exit not in (None, Exit.FINISH)

    def _leave(self, how: Exit, ask: ev.AskVm, force_at: float) -> list[ev.TaskEffect]:
        self._exit, self._force_at = how, force_at
        return [*self._let_go(), ask]

    def _let_go(self) -> list[ev.TaskEffect]:
        if self._held_until is None:
            return []
        self._held_until = None
        return [ev.HoldVm(held=False, sole=self._short_pauses >= _THROTTLES)]

    # What the VM does

    def _look(self, view: ev.View, wall: float, now: float) -> list[ev.TaskEffect]:
        passed = 0.0 if self._looked_at is None else max(0.0, now - self._looked_at)
        self._looked_at = now
        runs = view.state is State.RUNNING and self._held_until is None
        if runs:
            self.progress.running_seconds += passed
        self.meter.read(view.cpu_seconds)
        self._count(view)
        self._checkpoint(now)
        effects = self._overdue(now) + self._unthrottled(now)
        if runs and not self._leaving:
            effects += self._idle(view.guest_state, passed, wall, now)
            effects += self._time_is_up()
        return effects + self._trickle(view, now)

    def _count(self, view: ev.View) -> None:
        succeeded, failed = self._jobs.fresh(view.boot, view.jobs_succeeded, view.jobs_failed)
        self.progress.jobs_succeeded += succeeded
        self.progress.jobs_failed += failed
        if succeeded or failed or view.receipts > self.progress.receipts:
            self._checkpoint_due = True
        self.progress.receipts = max(view.receipts, self.progress.receipts)

    def _checkpoint(self, now: float) -> None:
        """What the manager has accepted is not lost by a restart."""
        if self._checkpoint_due and now - self._checkpointed_at >= self._rules.checkpoint_seconds:
            self._checkpoint_due, self._checkpointed_at = False, now
            self.meter.mark()

    def _overdue(self, now: float) -> list[ev.TaskEffect]:
        if self._held_until is not None and now >= self._held_until:
            self._short_pauses = 0
            return [*self._let_go(), ev.AskVm(Ask.PAUSE, _SUSPENDED)]
        if self._force_at is not None and now >= self._force_at:
            self._force_at = None
            return [ev.AskVm(Ask.STOP_NOW)]
        return []

    def _unthrottled(self, now: float) -> list[ev.TaskEffect]:
        """The client has stopped its throttling: ours is needed again."""
        over = now - self._resumed_at >= self._rules.short_pause_seconds
        if self.suspended or self._leaving or not over or not self._short_pauses:
            return []
        throttled, self._short_pauses = self._short_pauses >= _THROTTLES, 0
        return [ev.HoldVm(held=False)] if throttled else []

    def _idle(
        self, guest_state: str, passed: float, wall: float, now: float
    ) -> list[ev.TaskEffect]:
        self.waiting = _WAITING.get(guest_state, "")
        if guest_state in ("working", "draining"):
            self._idle_seconds, self.progress.idle_since = 0.0, None
        if not self.waiting:
            return []
        if self.progress.idle_since is None or self.progress.idle_since > wall:
            self.progress.idle_since = wall
        if wall - self.progress.idle_since >= self._rules.idle_end_seconds:
            return self._finish("no work has come for long")
        self._idle_seconds += passed
        if self._idle_seconds < self._rules.idle_seconds or self._exit is not None:
            return []
        save, force_at = ev.AskVm(Ask.SAVE, self.waiting), now + self._rules.save_seconds
        return [Say("info", self.waiting), *self._leave(Exit.IDLE, save, force_at)]

    def _time_is_up(self) -> list[ev.TaskEffect]:
        if self._exit is Exit.FINISH:
            return self._grace()
        if self.progress.finish_soon:
            return self._finish("the project asks this task to end")
        if self.progress.running_seconds >= self._rules.task_seconds:
            return self._finish("the task has run for its time")
        if self.progress.receipts >= self._rules.most_receipts:
            return self._finish("the task has as many receipts as it can hand in")
        return []

    def _finish(self, why: str) -> list[ev.TaskEffect]:
        if self._exit is not None:
            return []
        self._exit = Exit.FINISH
        self._finish_by = self.progress.running_seconds + self._rules.grace_seconds
        return [Say("info", f"{why}; it ends with the jobs that it has"), ev.AskVm(Ask.FINISH)]

    def _grace(self) -> list[ev.TaskEffect]:
        if self.progress.running_seconds < self._finish_by:
            return []
        self._finish_by = float("inf")
        said = Say("warning", "a job takes too long and is given back")
        return [said, ev.AskVm(Ask.STOP, "the task's time is over")]

    def _trickle(self, view: ev.View, now: float) -> list[ev.TaskEffect]:
        if self._rules.trickle_seconds is None:
            return []
        if self._trickled_at is None:
            self._trickled_at = now
        if now - self._trickled_at < self._rules.trickle_seconds:
            return []
        self._trickled_at = now
        return self.last_trickle(view.receipts_cpu_seconds)

    def last_trickle(self, receipts_cpu_seconds: float) -> list[ev.TaskEffect]:
        """What was not told yet; also asked for when the task is over."""
        untold = receipts_cpu_seconds - self.progress.trickled_seconds
        if self._rules.trickle_seconds is None or untold <= 0:
            return []
        self.progress.trickled_seconds = receipts_cpu_seconds
        return [ev.Trickle(untold, receipts_cpu_seconds)]

    # The end

    def _ended(self, event: ev.VmEnded) -> list[ev.TaskEffect]:
        reason = self.waiting or IDLE_REASON
        later = ev.Postpone(self._rules.idle_exit_seconds, reason)
        ending = ending_of(self._exit, event.end, self.progress, later)
        if event.end.outcome is Outcome.SAVED:
            self.progress.saved_cpu_seconds = self.meter.total
        if isinstance(ending, ev.Finish) or event.end.outcome is Outcome.SAVED:
            self.meter.mark()
        return [ending]
