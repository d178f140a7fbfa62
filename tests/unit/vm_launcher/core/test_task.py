"""The decisions of a BOINC task, in virtual time."""

import pytest

from vm_launcher.core.events import Ask, End, Outcome, Say
from vm_launcher.core.states import State
from vm_launcher.core.task import IDLE_REASON, Task, TaskRules
from vm_launcher.core.task_events import (
    Abort,
    AskVm,
    Finish,
    FinishSoon,
    HoldVm,
    Leave,
    Looked,
    Postpone,
    Quit,
    Resume,
    Suspend,
    TaskEffect,
    TaskEvent,
    Trickle,
    View,
    VmEnded,
)
from vm_launcher.core.task_progress import Meter, Progress

SAVED = End(Outcome.SAVED)
STOPPED = End(Outcome.STOPPED)
FINISHED = End(Outcome.FINISHED)


class Played:
    """A task whose VM is looked at every second."""

    def __init__(
        self, rules: TaskRules | None = None, progress: Progress | None = None, cpu: float = 0.0
    ) -> None:
        self.task = Task(rules or TaskRules(), progress or Progress(), Meter(cpu))
        self.now = 1000.0
        self.wall = 1_700_000_000.0

    def say(self, event: TaskEvent) -> list[TaskEffect]:
        return self.task.handle(event, self.now)

    def look(
        self,
        seconds: float = 1.0,
        guest_state: str = "working",
        state: State = State.RUNNING,
        **seen: float,
    ) -> list[TaskEffect]:
        """Once each second for so long; returns all effects."""
        effects: list[TaskEffect] = []
        for _ in range(round(seconds)):
            self.now += 1
            self.wall += 1
            view = View(state, guest_state, boot=1, **seen)  # type: ignore[arg-type]
            effects += self.say(Looked(view, self.wall))
        return effects


def asks(effects: list[TaskEffect]) -> list[Ask]:
    return [effect.ask for effect in effects if isinstance(effect, AskVm)]


def test_a_suspended_task_is_paused_with_a_word_to_the_manager() -> None:
    played = Played()
    assert asks(played.say(Suspend())) == [Ask.PAUSE]
    assert played.say(Suspend()) == []
    assert asks(played.say(Resume())) == [Ask.RESUME]


def test_a_client_that_throttles_is_not_announced() -> None:
    played = Played()
    played.say(Suspend())
    played.say(Resume())
    for _ in range(20):
        assert played.look(1) == []
        assert played.say(Suspend()) == [HoldVm(held=True)]
        assert played.look(1) == []
        assert asks(played.say(Resume())) == []


def test_a_client_that_throttles_is_not_helped_by_our_own_limit() -> None:
    played = Played()
    played.say(Suspend())
    played.say(Resume())
    sole = []
    for _ in range(5):
        played.look(1)
        played.say(Suspend())
        played.look(1)
        sole += [effect.sole for effect in played.say(Resume()) if isinstance(effect, HoldVm)]
    assert sole == [False, False, True, True, True], "twice may be a person"
    assert played.look(9) == []
    assert played.look(1) == [HoldVm(held=False)], "it throttles no more"
    assert played.look(30) == []


def test_a_short_pause_that_gets_long_is_announced_after_all() -> None:
    played = Played()
    played.say(Suspend())
    played.say(Resume())
    played.say(Suspend())
    assert played.look(9) == []
    assert played.look(1) == [HoldVm(held=False), AskVm(Ask.PAUSE, "suspended by BOINC")]
    assert asks(played.say(Resume())) == [Ask.RESUME]


def test_time_at_rest_is_no_running_time() -> None:
    played = Played()
    played.look(10)
    played.look(50, state=State.PAUSED)
    played.say(Suspend())
    played.say(Resume())
    played.say(Suspend())
    played.look(5)
    assert played.task.progress.running_seconds == pytest.approx(9)  # the first look starts it


def test_a_quit_saves_and_leaves_without_an_end() -> None:
    played = Played()
    played.look(10, cpu_seconds=8.0)
    assert asks(played.say(Quit("the client quits"))) == [Ask.SAVE]
    assert played.say(Suspend()) == [], "it is on its way"
    assert played.say(VmEnded(SAVED)) == [Leave(saved=True)]
    assert played.task.meter.checkpoint == 8.0, "a saved state is a checkpoint"
    assert played.task.progress.saved_cpu_seconds == 8.0


def test_a_quit_during_the_boot_leaves_nothing_to_go_on_with() -> None:
    played = Played()
    played.look(3, "", State.BOOTING, cpu_seconds=3.0)
    played.say(Quit("the client quits"))
    assert played.say(VmEnded(STOPPED)) == [Leave()]
    assert played.task.meter.checkpoint == 0.0


def test_a_save_that_hangs_is_cut_short_before_the_client_kills() -> None:
    played = Played()
    played.say(Quit("the client quits"))
    assert played.look(44, state=State.SAVING) == []
    assert asks(played.look(1, state=State.SAVING)) == [Ask.STOP_NOW]


def test_an_abort_says_good_bye_for_some_seconds_and_no_longer() -> None:
    played = Played()
    assert asks(played.say(Abort())) == [Ask.STOP]
    assert asks(played.look(7, state=State.STOPPING)) == [Ask.STOP_NOW]
    assert played.say(VmEnded(STOPPED)) == [Leave(194)]


def test_an_abort_overtakes_a_quit_and_a_held_vm() -> None:
    played = Played()
    played.say(Suspend())
    played.say(Resume())
    played.say(Suspend())
    assert played.say(Quit("x"))[0] == HoldVm(held=False)
    assert asks(played.say(Abort())) == [Ask.STOP]


def test_an_idle_vm_is_saved_and_the_task_asks_for_another_start() -> None:
    played = Played()
    played.look(30)
    assert played.look(299, "idle") == []
    assert played.task.waiting == IDLE_REASON
    said = played.look(1, "idle")
    assert said == [Say("info", IDLE_REASON), AskVm(Ask.SAVE, IDLE_REASON)]
    assert played.say(VmEnded(SAVED)) == [Postpone(600, IDLE_REASON)]


def test_a_job_ends_the_idleness() -> None:
    played = Played()
    played.look(290, "idle")
    played.look(1, "working")
    assert played.task.waiting == ""
    assert played.look(299, "idle") == []


def test_a_vm_that_only_boots_is_not_idle() -> None:
    played = Played()
    assert played.look(600, "", State.BOOTING) == []


def test_hours_without_work_end_the_task_over_restarts() -> None:
    progress = Progress()
    played = Played(progress=progress)
    played.look(300, "idle")
    for _ in range(20):
        played.say(VmEnded(SAVED))
        later = Played(progress=progress)
        later.wall = played.wall + 600
        played = later
        effects = played.look(300, "idle")
        if Ask.FINISH in asks(effects):
            break
    assert played.wall - 1_700_000_000.0 == pytest.approx(14400, abs=910)
    assert played.say(VmEnded(FINISHED)) == [Finish(207, "no job came")]


def test_the_time_is_over_at_the_end_of_the_jobs() -> None:
    played = Played(TaskRules(task_seconds=100, grace_seconds=50))
    assert asks(played.look(101)) == [Ask.FINISH]
    assert played.task.fraction < 1
    assert played.look(40, "draining") == []
    assert asks(played.look(10, "draining")) == [Ask.STOP], "its grace is over"
    assert played.look(40, "draining", State.STOPPING) == []


def test_a_finishing_task_can_still_be_suspended_and_quit() -> None:
    rules = TaskRules(task_seconds=10)
    played = Played(rules)
    played.look(11)
    assert asks(played.say(Suspend())) == [Ask.PAUSE]
    assert asks(played.say(Quit("x"))) == [Ask.SAVE]
    assert played.say(VmEnded(SAVED)) == [Leave(saved=True)]
    again = Played(rules, played.task.progress)
    assert asks(again.look(1)) == [Ask.FINISH]


def test_the_project_may_ask_for_the_end() -> None:
    played = Played()
    played.say(FinishSoon())
    assert asks(played.look(1)) == [Ask.FINISH]


def test_a_receipt_makes_success_of_every_end() -> None:
    for end in (FINISHED, STOPPED, End(Outcome.FAILED, "the VM failed", "look")):
        played = Played()
        played.look(1, receipts=1)
        assert isinstance(finish := played.say(VmEnded(end))[0], Finish)
        assert finish.status == 0


def test_without_a_receipt_the_end_says_why() -> None:
    played = Played()
    assert played.say(VmEnded(FINISHED)) == [Finish(207, "no job came")]
    played.look(1, jobs_failed=2)
    failures = Finish(208, "none of 2 jobs succeeded", notice=True)
    assert played.say(VmEnded(FINISHED)) == [failures]
    broken = played.say(VmEnded(End(Outcome.FAILED, "no hello", "look at it")))
    assert broken == [Finish(206, "no hello. Try: look at it", notice=True)]


def test_too_little_room_is_no_failure_of_the_task() -> None:
    played = Played()
    full = End(Outcome.FAILED, "the VM needs 900 MiB", "see --disk", no_space=True)
    words = "the VM needs 900 MiB. Try: make room there"
    assert played.say(VmEnded(full)) == [Postpone(3600, words, notice=True)]


def test_an_accepted_report_is_a_checkpoint_now_and_then() -> None:
    played = Played(TaskRules(checkpoint_seconds=60))
    played.look(10, cpu_seconds=5.0)
    assert played.task.meter.checkpoint == 0.0
    played.look(1, cpu_seconds=6.0, jobs_succeeded=1)
    assert played.task.meter.checkpoint == 6.0
    played.look(30, cpu_seconds=40.0, jobs_succeeded=2)
    assert played.task.meter.checkpoint == 6.0, "not each second, for each is written to disk"
    played.look(30, cpu_seconds=70.0, jobs_succeeded=2)
    assert played.task.meter.checkpoint == 70.0


def test_jobs_are_counted_over_boots_and_agents() -> None:
    played = Played()
    played.look(1, jobs_succeeded=3, jobs_failed=1)
    played.look(1, jobs_succeeded=1, jobs_failed=0)  # its agent was started again
    played.look(1, jobs_succeeded=2, jobs_failed=0)
    progress = played.task.progress
    assert (progress.jobs_succeeded, progress.jobs_failed) == (5, 1)


def test_trickles_tell_what_receipts_say_and_nothing_twice() -> None:
    played = Played(TaskRules(trickle_seconds=60))
    assert played.look(60, receipts=1, receipts_cpu_seconds=30.0) == []
    assert played.look(1, receipts=2, receipts_cpu_seconds=50.0) == [Trickle(50.0, 50.0)]
    assert played.look(120, receipts=2, receipts_cpu_seconds=50.0) == []
    assert played.look(60, receipts=3, receipts_cpu_seconds=61.5) == [Trickle(11.5, 61.5)]
    assert played.task.last_trickle(70.0) == [Trickle(8.5, 70.0)]
    assert played.task.last_trickle(70.0) == []


def test_no_trickles_where_receipts_are_the_way() -> None:
    played = Played()
    assert played.look(7200, receipts=1, receipts_cpu_seconds=30.0) == []
    assert played.task.last_trickle(30.0) == []


def test_the_meter_goes_on_over_saves_boots_and_restarts() -> None:
    meter = Meter(100.0, saved=40.0)
    meter.read(None)
    meter.read(45.0)
    assert meter.total == 105.0
    meter.read(3.0)  # another VM
    meter.read(7.0)
    assert meter.total == 112.0
    assert meter.checkpoint == 100.0
    meter.mark()
    assert meter.checkpoint == 112.0


def test_a_task_ends_before_its_upload_gets_too_large() -> None:
    played = Played(TaskRules(most_receipts=50))
    assert asks(played.look(100, receipts=49)) == []
    assert asks(played.look(1, receipts=50)) == [Ask.FINISH]
    assert asks(played.look(10, receipts=51)) == []
    assert Finish(0) in played.say(VmEnded(FINISHED))
