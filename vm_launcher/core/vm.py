"""The life of one VM: events in, effects out. No clock, no I/O.

Every move is checked against the table in `states`. What the owner wants (`_wish`) is kept apart
from where the VM is: each time the VM comes to rest in a state, the wish decides how it goes on.
So an ask is never lost, whenever it comes.
"""

from typing import assert_never

from copilot_agent.protocol import guest
from vm_launcher.core import events as ev
from vm_launcher.core.endings import end_of
from vm_launcher.core.events import Ask, Effect, Event, Outcome
from vm_launcher.core.restarts import Restarts
from vm_launcher.core.states import GUEST_IS_UP, MOVES, Rules, State, Wish

_SLOW_REMEDY = (
    "look at console.log in the state directory; on a slow or busy host raise boot_seconds in the "
    "config file"
)


class Vm:
    """`handle` takes events one at a time; `deadline` says when it wants a `Tick`."""

    def __init__(self, rules: Rules) -> None:
        self.state = State.ABSENT
        self.boot = 0
        """Counts hypervisor processes, so that words of a former one are told apart."""
        self.deadline: float | None = None
        self.finishing = False
        self._rules = rules
        self._accelerators = list(rules.accelerators)
        self._wish, self._reason = Wish.RUN, ""
        self._greeted = self._worked = False
        self._ready = self._ready_awaited = False
        self._epoch: int | None = None
        self._boot_left = 0.0
        self._paused_at = 0.0
        self._restarts = Restarts(rules)
        self._pause_under_way = False
        self._after_cleaning: ev.End | float = 0.0
        """How it ends, or the seconds until the next boot."""

    @property
    def accelerator(self) -> str:
        return self._accelerators[0]

    def handle(self, event: Event, now: float) -> list[Effect]:
        match event:
            case ev.Begin(saved, saved_seconds):
                return self._restore(now - saved_seconds) if saved else self._start_boot()
            case ev.Asked(ask, reason):
                return self._asked(ask, reason, now)
            case ev.Heard(boot, message):
                up = boot == self.boot and self._guest_is_up()
                return self._heard(message, now) if up else []
            case ev.VmOver(boot, reason):
                return self._over(reason, now) if boot == self.boot else []
            case ev.Tick():
                return self._tick(now)
            case ev.Booted() | ev.BootFailed() | ev.Restored() | ev.RestoreFailed():
                return self._begun(event, now)
            case ev.Paused() | ev.Resumed() | ev.Saved() | ev.SaveFailed() | ev.Destroyed():
                return self._done(event, now)
            case _:
                assert_never(event)

    # What the driver reports

    def _begun(
        self, event: ev.Booted | ev.BootFailed | ev.Restored | ev.RestoreFailed, now: float
    ) -> list[Effect]:
        if self.state not in (State.BOOTING, State.RESTORING):
            return []  # it was told to stop at once meanwhile
        match event:
            case ev.Booted():
                self.deadline = now + self._boot_limit()
                return self._settle(now)
            case ev.BootFailed(reason, remedy, no_space):
                return self._boot_failed(f"the VM did not start: {reason}", remedy, no_space)
            case ev.Restored():
                self._greeted = self._ready = True
                self._move(State.PAUSED)
                return self._settle(now)
            case ev.RestoreFailed(reason):
                again = f"the saved VM is given up, a fresh one is started: {reason}"
                return [ev.Say("warning", again), *self._clean(0.0)]
            case _:
                assert_never(event)

    def _done(
        self,
        event: ev.Paused | ev.Resumed | ev.Saved | ev.SaveFailed | ev.Destroyed,
        now: float,
    ) -> list[Effect]:
        match event:
            case ev.Paused() if self.state is State.PAUSING:
                self._paused_at = now
                self._move(State.PAUSED)
                return self._settle(now)
            case ev.Resumed() if self.state is State.RESUMING:
                return self._resumed(now)
            case ev.Saved() if self.state is State.SAVING:
                self._move(State.SAVED)
                return [ev.End(Outcome.SAVED, "the VM is saved; the next run goes on with it")]
            case ev.SaveFailed(reason) if self.state is State.SAVING:
                self._move(State.PAUSED)
                self._wish = Wish.STOP
                said = ev.Say("error", f"the VM could not be saved and is stopped: {reason}")
                return [said, *self._settle(now)]
            case ev.Destroyed() if self.state is State.CLEANING:
                return self._cleaned(now)
            case _:
                return []  # an answer to something that a stop at once has overtaken

    def _resumed(self, now: float) -> list[Effect]:
        if not self._greeted:
            self._move(State.BOOTING)
            self.deadline = now + self._boot_left
            return self._settle(now)
        self._move(State.RUNNING)
        self.deadline = now + self._boot_limit()  # for the new hello
        told: list[Effect] = [ev.TellResumed(max(0.0, now - self._paused_at))]
        return told + self._settle(now)

    # What the owner asks

    def _asked(self, ask: Ask, reason: str, now: float) -> list[Effect]:
        match ask:
            case Ask.STOP_NOW:
                return self._stop_now()
            case Ask.FINISH | Ask.UNDO_FINISH:
                return self._asked_finish(ask is Ask.FINISH, now)
            case Ask.PAUSE:
                wish = Wish.PAUSE
            case Ask.RESUME:
                wish = Wish.RUN
            case Ask.SAVE:
                wish = Wish.SAVE
            case Ask.STOP:
                wish = Wish.STOP
            case _:
                assert_never(ask)
        if self._wish not in (Wish.SAVE, Wish.STOP) or wish is Wish.STOP:
            self._wish, self._reason = wish, reason
        return self._settle(now)

    def _asked_finish(self, finish: bool, now: float) -> list[Effect]:
        if self.finishing == finish:
            return []
        self.finishing = finish
        if not self._greeted and finish:  # no job has been taken yet
            self._wish = Wish.STOP
            return self._settle(now)
        return [ev.TellDrain(undo=not finish)] if self.state is State.RUNNING else []

    def _stop_now(self) -> list[Effect]:
        end = ev.End(Outcome.STOPPED, "stopped at once")
        if self.state in (State.SAVED, State.GONE):
            return []
        if self.state is State.CLEANING:
            self._after_cleaning = end
            return []
        if self.state in (State.WAITING, State.ABSENT):
            self.state = State.GONE
            return [end]
        return self._clean(end)

    # The VM at rest: does it stand where the owner wants it?

    def _settle(self, now: float) -> list[Effect]:
        match self.state:
            case State.RUNNING:
                return self._settle_running(now)
            case State.PAUSED:
                return self._settle_paused()
            case State.BOOTING if self.deadline is not None:
                return self._settle_booting(now)
            case State.WAITING:
                return self._settle_waiting()
            case _:
                return []  # on its way; asked again on arrival

    def _settle_running(self, now: float) -> list[Effect]:
        match self._wish:
            case Wish.RUN:
                return []
            case Wish.PAUSE | Wish.SAVE:
                self._move(State.PAUSING)
                self.deadline = now + self._rules.pause_seconds
                return [ev.TellPauseSoon(self._rules.pause_seconds, self._reason)]
            case Wish.STOP:
                self._move(State.STOPPING)
                self.deadline = now + self._rules.stop_seconds
                return [ev.TellStop(self._rules.stop_seconds)]
            case _:
                assert_never(self._wish)

    def _settle_paused(self) -> list[Effect]:
        match self._wish:
            case Wish.PAUSE:
                return []
            case Wish.SAVE if self._greeted:
                self._move(State.SAVING)
                return [ev.SaveVm()]
            case Wish.STOP | Wish.SAVE if not self._greeted:
                return self._clean(ev.End(Outcome.STOPPED, "stopped before the guest was up"))
            case Wish.RUN | Wish.STOP | Wish.SAVE:
                # A guest that is to stop runs once more: it tells the manager what it leaves.
                self._move(State.RESUMING)
                return [ev.ResumeVm()]
            case _:
                assert_never(self._wish)

    def _settle_booting(self, now: float) -> list[Effect]:
        match self._wish:
            case Wish.RUN:
                return []
            case Wish.PAUSE:
                self._boot_left = max(0.0, (self.deadline or now) - now)
                self._move(State.PAUSING)
                return [ev.PauseVm()]
            case Wish.SAVE | Wish.STOP:
                return self._clean(ev.End(Outcome.STOPPED, "stopped before the guest was up"))
            case _:
                assert_never(self._wish)

    def _settle_waiting(self) -> list[Effect]:
        if self._wish in (Wish.STOP, Wish.SAVE):
            self._move(State.GONE)
            return [ev.End(Outcome.STOPPED)]
        return []

    # What the guest says

    def _heard(self, message: guest.GuestMessage, now: float) -> list[Effect]:
        match message:
            case guest.Hello():
                return self._hello(message, now)
            case guest.Ready():
                return self._is_ready(message)
            case guest.State():
                return self._guest_state(message, now)
            case guest.PauseOk():
                return self._pause() if self.state is State.PAUSING else []
            case guest.Receipts():
                return [ev.KeepReceipts(message.receipts)]
            case guest.GuestProgress() | guest.FileEvent() | guest.Log():
                return []
            case _:
                assert_never(message)

    def _guest_is_up(self) -> bool:
        if self.state is State.BOOTING:
            return self.deadline is not None  # the driver has said that it runs
        return self.state in GUEST_IS_UP

    def _hello(self, hello: guest.Hello, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if hello.epoch != self._epoch:
            self._epoch = hello.epoch
            effects.append(ev.RenewNet(hello.epoch))
        effects.append(ev.TellWelcome())
        if hello.restarted:
            self._ready = False
        if self.state is State.BOOTING:
            self._move(State.RUNNING)
        self._greeted = self._worked = True
        if self.state is State.RUNNING:
            self._await_ready(now)
        if self.finishing:
            effects.append(ev.TellDrain())
        return effects + self._settle(now)

    def _await_ready(self, now: float) -> None:
        """An agent that is started again and again does not get more time each time."""
        if self._ready:
            self.deadline = None
        elif self.deadline is None or not self._ready_awaited:
            self.deadline = now + 2 * self._boot_limit()
        self._ready_awaited = not self._ready

    def _is_ready(self, ready: guest.Ready) -> list[Effect]:
        self._ready = True
        if self.state is State.RUNNING and self._ready_awaited:
            self._ready_awaited = False
            self.deadline = None
        return [ev.TellEnrolment(ready.pilot_key)]

    def _guest_state(self, said: guest.State, now: float) -> list[Effect]:
        if said.state in ("retired", "failed"):
            if self.state not in (State.RUNNING, State.STOPPING, State.PAUSING):
                return []
            return self._clean(end_of(said, self.finishing, self._wish))
        if said.state == "drained" and self.finishing and self._wish is not Wish.SAVE:
            self._wish = Wish.STOP
            return self._settle(now)
        return []

    # Time

    def _tick(self, now: float) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        match self.state:
            case State.PAUSING:
                return self._pause()
            case State.STOPPING:
                return self._clean(self._stopped())
            case State.WAITING:
                return self._start_boot()
            case State.BOOTING:
                return self._no_hello(now)
            case State.RUNNING:
                what = "did not get ready" if self._ready_awaited else "said nothing after a pause"
                return self._over(f"the guest's agent {what}", now)
            case _:
                return []

    def _no_hello(self, now: float) -> list[Effect]:
        why = f"no hello from the guest within {self._boot_limit():.0f} s under {self.accelerator}"
        if self._worked:  # here, and under this accelerator
            return self._restart_later(why, now)
        return self._boot_failed(why, _SLOW_REMEDY)

    # Steps

    def _start_boot(self) -> list[Effect]:
        self._move(State.BOOTING)
        self.boot += 1
        self._greeted, self._epoch = False, None
        self._ready = self._ready_awaited = False
        return [ev.BootVm(self.boot, self.accelerator)]

    def _restore(self, saved_at: float) -> list[Effect]:
        self._move(State.RESTORING)
        self._paused_at = saved_at
        self.boot += 1
        return [ev.RestoreVm(self.boot)]

    def _pause(self) -> list[Effect]:
        if self.state is State.PAUSING and self._pause_under_way:
            return []
        self.deadline = None
        self._pause_under_way = True
        return [ev.PauseVm()]

    def _boot_failed(self, reason: str, remedy: str, no_space: bool = False) -> list[Effect]:
        if len(self._accelerators) > 1 and not no_space:
            del self._accelerators[0]
            said = f"{reason}; trying once more under {self.accelerator}"
            return [ev.Say("warning", said), *self._clean(0.0)]
        return self._clean(ev.End(Outcome.FAILED, reason, remedy, no_space=no_space))

    def _over(self, reason: str, now: float) -> list[Effect]:
        if self.state in (State.CLEANING, State.WAITING, State.SAVED, State.GONE, State.ABSENT):
            return []
        if self.state is State.STOPPING or self._wish is Wish.STOP:
            return self._clean(self._stopped())
        if self.state is State.BOOTING and len(self._accelerators) > 1:
            return self._boot_failed(reason, "")
        return self._restart_later(reason, now)

    def _restart_later(self, reason: str, now: float) -> list[Effect]:
        wait = self._restarts.wait(now)
        if wait is None:
            said = f"the VM failed {self._restarts.failures} times in a row, last: {reason}"
            return self._clean(ev.End(Outcome.FAILED, said, _SLOW_REMEDY))
        said = f"the VM is over: {reason}; next boot in {wait:.0f} s"
        return [ev.Say("error", said), *self._clean(wait)]

    def _clean(self, then: ev.End | float) -> list[Effect]:
        self._after_cleaning = then
        self._move(State.CLEANING)
        return [ev.DestroyVm()]

    def _cleaned(self, now: float) -> list[Effect]:
        then = self._after_cleaning
        if isinstance(then, ev.End):
            self._move(State.GONE)
            return [then]
        self._move(State.WAITING)
        self.deadline = now + then
        return self._settle(now)

    def _stopped(self) -> ev.End:
        return ev.End(Outcome.FINISHED if self.finishing else Outcome.STOPPED)

    def _boot_limit(self) -> float:
        return self._rules.boot_seconds.get(self.accelerator, 120.0)

    def _move(self, to: State) -> None:
        if to not in MOVES[self.state]:
            raise AssertionError(f"no move from {self.state} to {to}")
        self.state = to
        self.deadline = None
        self._pause_under_way = to is State.PAUSING and not self._greeted
