"""The life of one VM, event by event."""

from collections.abc import Sequence

import pytest

from copilot_agent.protocol import guest
from vm_launcher.core import events as ev
from vm_launcher.core.events import Ask, Effect, Event, Outcome
from vm_launcher.core.states import Rules, State
from vm_launcher.core.vm import Vm

KEY = "A" * 43


def feed(vm: Vm, *events: Event, now: float = 0.0) -> list[Effect]:
    """All effects of these events."""
    return [effect for event in events for effect in vm.handle(event, now)]


def hello(epoch: int = 1) -> guest.Hello:
    return guest.Hello(epoch=epoch, agent_version="1.0.0")


def heard(vm: Vm, message: guest.GuestMessage) -> ev.Heard:
    return ev.Heard(vm.boot, message)


def running(rules: Rules | None = None) -> Vm:
    vm = Vm(rules or Rules())
    feed(vm, ev.Begin(), ev.Booted())
    feed(vm, heard(vm, hello()), heard(vm, guest.Ready(pilot_key=KEY)))
    assert vm.state is State.RUNNING
    return vm


def paused() -> Vm:
    vm = running()
    feed(vm, ev.Asked(Ask.PAUSE))
    feed(vm, heard(vm, guest.PauseOk()), ev.Paused())
    assert vm.state is State.PAUSED
    return vm


def kinds(effects: Sequence[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_boot_hello_ready() -> None:
    vm = Vm(Rules())
    assert feed(vm, ev.Begin()) == [ev.BootVm(1, "tcg")]
    assert feed(vm, ev.Booted(), now=3.0) == []
    assert vm.deadline == 123.0
    assert feed(vm, heard(vm, hello(7)), now=10.0) == [ev.RenewNet(7), ev.TellWelcome()]
    assert vm.deadline == 250.0
    assert feed(vm, heard(vm, guest.Ready(pilot_key=KEY))) == [ev.TellEnrolment(KEY)]
    assert vm.deadline is None


def test_an_agent_that_never_gets_ready_is_booted_anew() -> None:
    vm = Vm(Rules())
    feed(vm, ev.Begin(), ev.Booted())
    feed(vm, heard(vm, hello(1)), now=10.0)
    for epoch in range(2, 20):
        again = guest.Hello(epoch=epoch, agent_version="1.0.0", restarted=True)
        feed(vm, heard(vm, again), now=10.0 * epoch)
    assert vm.deadline == 250.0, "starting again gains no time"
    effects = feed(vm, ev.Tick(), now=250.0)
    assert kinds(effects) == [ev.Say, ev.DestroyVm]
    assert "did not get ready" in effects[0].text  # type: ignore[union-attr]


def test_no_hello_in_time_is_tried_once_more_under_emulation() -> None:
    vm = Vm(Rules(accelerators=("kvm", "tcg")))
    feed(vm, ev.Begin(), ev.Booted())
    assert vm.deadline == 60.0
    assert feed(vm, ev.Tick(), now=59.9) == []
    assert kinds(feed(vm, ev.Tick(), now=60.0)) == [ev.Say, ev.DestroyVm]
    feed(vm, ev.Destroyed(), now=60.1)
    assert feed(vm, ev.Tick(), now=60.1) == [ev.BootVm(2, "tcg")]


def test_no_hello_under_the_last_accelerator_ends_with_a_remedy() -> None:
    vm = Vm(Rules())
    feed(vm, ev.Begin(), ev.Booted())
    feed(vm, ev.Tick(), now=120.0)
    (end,) = feed(vm, ev.Destroyed(), now=120.1)
    assert isinstance(end, ev.End)
    assert end.outcome is Outcome.FAILED
    assert "no hello" in end.message
    assert "boot_seconds" in end.remedy


def test_a_vm_that_has_worked_here_is_booted_again_without_a_hello() -> None:
    vm = running()
    feed(vm, ev.VmOver(1, "QEMU was killed"), ev.Destroyed(), now=10.0)
    feed(vm, ev.Tick(), now=11.0)
    feed(vm, ev.Booted(), now=11.0)
    assert kinds(feed(vm, ev.Tick(), now=131.0)) == [ev.Say, ev.DestroyVm]
    assert feed(vm, ev.Destroyed(), now=131.1) == []
    assert feed(vm, ev.Tick(), now=140.0) == [ev.BootVm(3, "tcg")]


def test_pause_waits_for_the_guest_and_resume_tells_how_long_it_was() -> None:
    vm = running()
    assert feed(vm, ev.Asked(Ask.PAUSE, "owner is back"), now=10.0) == [
        ev.TellPauseSoon(1.0, "owner is back")
    ]
    assert feed(vm, heard(vm, guest.PauseOk()), now=10.2) == [ev.PauseVm()]
    feed(vm, ev.Paused(), now=10.3)
    assert feed(vm, ev.Asked(Ask.RESUME), now=70.3) == [ev.ResumeVm()]
    assert feed(vm, ev.Resumed(), now=70.3) == [ev.TellResumed(60.0)]
    assert feed(vm, heard(vm, hello(2)), now=71.0) == [ev.RenewNet(2), ev.TellWelcome()]


def test_a_deaf_guest_is_paused_after_a_second() -> None:
    vm = running()
    feed(vm, ev.Asked(Ask.PAUSE), now=10.0)
    assert vm.deadline == 11.0
    assert feed(vm, ev.Tick(), now=11.0) == [ev.PauseVm()]
    assert feed(vm, heard(vm, guest.PauseOk()), now=11.1) == [], "paused once, not twice"


def test_pause_during_the_boot_stops_the_boot_clock() -> None:
    vm = Vm(Rules())
    feed(vm, ev.Begin(), ev.Booted())
    assert feed(vm, ev.Asked(Ask.PAUSE), now=20.0) == [ev.PauseVm()]
    feed(vm, ev.Paused(), now=20.0)
    assert vm.deadline is None
    feed(vm, ev.Asked(Ask.RESUME), ev.Resumed(), now=5000.0)
    assert vm.state is State.BOOTING
    assert vm.deadline == 5100.0


def test_asks_during_a_transition_are_not_lost() -> None:
    vm = running()
    feed(vm, ev.Asked(Ask.PAUSE))
    assert feed(vm, ev.Asked(Ask.RESUME)) == []
    feed(vm, heard(vm, guest.PauseOk()))
    assert feed(vm, ev.Paused()) == [ev.ResumeVm()]


def test_pause_asked_before_the_hypervisor_runs() -> None:
    vm = Vm(Rules())
    feed(vm, ev.Begin(), ev.Asked(Ask.PAUSE))
    assert feed(vm, ev.Booted()) == [ev.PauseVm()]


def test_save_pauses_first_and_ends() -> None:
    vm = running()
    assert kinds(feed(vm, ev.Asked(Ask.SAVE))) == [ev.TellPauseSoon]
    feed(vm, heard(vm, guest.PauseOk()))
    assert feed(vm, ev.Paused()) == [ev.SaveVm()]
    (end,) = feed(vm, ev.Saved())
    assert isinstance(end, ev.End)
    assert end.outcome is Outcome.SAVED


def test_a_failed_save_lets_the_guest_say_good_bye() -> None:
    vm = paused()
    assert feed(vm, ev.Asked(Ask.SAVE)) == [ev.SaveVm()]
    assert kinds(feed(vm, ev.SaveFailed("no space"))) == [ev.Say, ev.ResumeVm]
    assert kinds(feed(vm, ev.Resumed())) == [ev.TellResumed, ev.TellStop]


def test_restore_tells_the_time_and_wants_a_new_hello() -> None:
    vm = Vm(Rules())
    assert feed(vm, ev.Begin(saved=True, saved_seconds=3600.0), now=5.0) == [ev.RestoreVm(1)]
    assert feed(vm, ev.Restored(), now=6.0) == [ev.ResumeVm()]
    assert feed(vm, ev.Resumed(), now=6.0) == [ev.TellResumed(3601.0)]
    assert vm.deadline == 126.0
    feed(vm, heard(vm, hello(2)), now=7.0)
    assert vm.deadline is None


def test_an_unusable_saved_vm_gives_way_to_a_fresh_one() -> None:
    vm = Vm(Rules())
    feed(vm, ev.Begin(saved=True))
    effects = feed(vm, ev.RestoreFailed("the image has changed since the VM was saved"))
    assert kinds(effects) == [ev.Say, ev.DestroyVm]
    assert "the image has changed" in effects[0].text  # type: ignore[union-attr]
    feed(vm, ev.Destroyed())
    assert feed(vm, ev.Tick()) == [ev.BootVm(2, "tcg")]


def test_stop_gives_the_guest_five_seconds() -> None:
    vm = running()
    assert feed(vm, ev.Asked(Ask.STOP), now=10.0) == [ev.TellStop(5.0)]
    assert vm.deadline == 15.0
    assert feed(vm, ev.Tick(), now=15.0) == [ev.DestroyVm()]
    assert feed(vm, ev.Destroyed()) == [ev.End(Outcome.STOPPED)]


def test_a_retired_guest_is_not_waited_for() -> None:
    vm = running()
    feed(vm, ev.Asked(Ask.STOP))
    assert feed(vm, heard(vm, guest.State(state="retired"))) == [ev.DestroyVm()]


def test_a_paused_guest_runs_once_more_to_say_good_bye() -> None:
    vm = paused()
    assert feed(vm, ev.Asked(Ask.STOP)) == [ev.ResumeVm()]
    assert kinds(feed(vm, ev.Resumed())) == [ev.TellResumed, ev.TellStop]


@pytest.mark.parametrize("make", [running, paused], ids=["running", "paused"])
def test_stop_at_once_asks_nobody(make: type) -> None:
    vm = make()
    assert feed(vm, ev.Asked(Ask.STOP_NOW)) == [ev.DestroyVm()]
    assert vm.state is State.CLEANING


def test_finish_drains_then_stops() -> None:
    vm = running()
    assert feed(vm, ev.Asked(Ask.FINISH)) == [ev.TellDrain()]
    assert feed(vm, ev.Asked(Ask.FINISH)) == [], "told once"
    assert kinds(feed(vm, heard(vm, guest.State(state="drained")))) == [ev.TellStop]
    feed(vm, heard(vm, guest.State(state="retired")))
    (end,) = feed(vm, ev.Destroyed())
    assert isinstance(end, ev.End)
    assert end.outcome is Outcome.FINISHED


def test_finish_can_be_taken_back() -> None:
    vm = running()
    feed(vm, ev.Asked(Ask.FINISH))
    assert feed(vm, ev.Asked(Ask.UNDO_FINISH)) == [ev.TellDrain(undo=True)]
    assert feed(vm, heard(vm, guest.State(state="drained"))) == []
    assert vm.state is State.RUNNING


def test_finish_is_told_again_to_a_restarted_agent() -> None:
    vm = running()
    feed(vm, ev.Asked(Ask.FINISH))
    again = guest.Hello(epoch=2, agent_version="1.0.0", restarted=True)
    assert feed(vm, heard(vm, again)) == [ev.RenewNet(2), ev.TellWelcome(), ev.TellDrain()]


def test_a_crash_boots_anew_with_growing_waits_and_gives_up() -> None:
    vm = Vm(Rules(restarts=3))
    feed(vm, ev.Begin())
    waits, now = [], 0.0
    while vm.state is not State.GONE:
        feed(vm, ev.Booted(), now=now)
        feed(vm, heard(vm, hello()), now=now)
        feed(vm, ev.VmOver(vm.boot, "died"), now=now)
        effects = feed(vm, ev.Destroyed(), now=now)
        if vm.deadline is not None:
            waits.append(vm.deadline - now)
            now = vm.deadline
            feed(vm, ev.Tick(), now=now)
    assert waits == [0.75, 1.5, 3.0], "half of it by chance"
    (end,) = effects
    assert isinstance(end, ev.End)
    assert end.outcome is Outcome.FAILED


def test_a_crash_after_a_long_time_starts_the_count_anew() -> None:
    vm = running(Rules(restarts=1))
    for number in range(1, 5):
        now = number * 10_000.0
        feed(vm, ev.VmOver(vm.boot, "died"), ev.Destroyed(), now=now)
        feed(vm, ev.Tick(), ev.Booted(), now=now + 1)
        feed(vm, heard(vm, hello()), now=now + 2)
        assert vm.state is State.RUNNING


def test_words_of_a_former_boot_are_not_heard() -> None:
    vm = running()
    old = vm.boot
    feed(vm, ev.VmOver(old, "died"), ev.Destroyed())
    feed(vm, ev.Tick(), ev.Booted(), now=1.0)
    assert feed(vm, ev.Heard(old, hello()), ev.VmOver(old, "died")) == []
    assert vm.state is State.BOOTING


def test_a_silent_guest_after_a_resume_is_booted_anew() -> None:
    vm = paused()
    feed(vm, ev.Asked(Ask.RESUME), ev.Resumed(), now=10.0)
    assert vm.deadline == 130.0
    assert kinds(feed(vm, ev.Tick(), now=130.0)) == [ev.Say, ev.DestroyVm]


def test_a_pilot_that_gives_up_ends_the_launcher() -> None:
    vm = running()
    feed(vm, heard(vm, guest.State(state="failed", message="enrolment_refused")))
    (end,) = feed(vm, ev.Destroyed())
    assert isinstance(end, ev.End)
    assert (end.outcome, end.by_pilot) == (Outcome.FAILED, True)
    assert "enrolment_refused" in end.message


def test_stop_while_waiting_for_the_next_boot_ends_at_once() -> None:
    vm = running()
    feed(vm, ev.VmOver(vm.boot, "died"), ev.Destroyed())
    assert vm.state is State.WAITING
    assert feed(vm, ev.Asked(Ask.STOP)) == [ev.End(Outcome.STOPPED)]
