"""Whatever comes in whatever order: no impossible move, one operation at a time, a clean end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from copilot_agent.protocol import guest
from vm_launcher.core import events as ev
from vm_launcher.core.events import Ask, Effect
from vm_launcher.core.states import MOVES, Rules, State
from vm_launcher.core.vm import Vm

OPERATIONS = (ev.BootVm, ev.PauseVm, ev.ResumeVm, ev.SaveVm, ev.RestoreVm, ev.DestroyVm)
MESSAGES: list[guest.GuestMessage] = [
    guest.Hello(epoch=1, agent_version="1.0.0"),
    guest.Hello(epoch=2, agent_version="1.0.0", restarted=True),
    guest.Ready(pilot_key="A" * 43),
    guest.PauseOk(),
    guest.State(state="idle"),
    guest.State(state="drained"),
    guest.State(state="retired"),
]


class AnyOrder(RuleBasedStateMachine):
    """A driver that answers each operation in the end, well or badly; the rest is chance."""

    def __init__(self) -> None:
        super().__init__()
        self.vm = Vm(Rules(accelerators=("kvm", "tcg")))
        self.now = 0.0
        self.pending: Effect | None = None
        self.exists = False
        """A hypervisor may run or files may be there."""
        self.ended = False

    @initialize(saved=st.booleans())
    def begin(self, saved: bool) -> None:
        self.exists = saved
        self.feed(ev.Begin(saved=saved))

    def feed(self, event: ev.Event) -> None:
        before = self.vm.state
        for effect in self.vm.handle(event, self.now):
            assert not self.ended, "nothing is done after the end"
            if isinstance(effect, ev.DestroyVm):
                self.pending = effect  # overtakes
            elif isinstance(effect, OPERATIONS):
                assert self.pending is None, f"{effect} while {self.pending} is under way"
                self.pending = effect
                self.exists = True
            elif isinstance(effect, ev.End):
                self.ended = True
                saved = effect.outcome is ev.Outcome.SAVED
                assert saved or not self.exists, "nothing may be left behind"
        after = self.vm.state
        assert after is before or after in MOVES[before] or self.ended or self.hops(before, after)

    def hops(self, before: State, after: State) -> bool:
        """Two moves in one event, by way of a state of rest."""
        return any(after in MOVES[between] for between in MOVES[before])

    @rule(ask=st.sampled_from(list(Ask)))
    def ask(self, ask: Ask) -> None:
        self.feed(ev.Asked(ask))

    @rule(message=st.sampled_from(MESSAGES))
    def guest_says(self, message: guest.GuestMessage) -> None:
        self.feed(ev.Heard(self.vm.boot, message))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.vm.deadline is not None and self.now >= self.vm.deadline:
            self.feed(ev.Tick())

    @rule()
    def vm_dies(self) -> None:
        self.feed(ev.VmOver(self.vm.boot, "died"))

    @precondition(lambda self: self.pending is not None)
    @rule(well=st.booleans())
    def operation_ends(self, well: bool) -> None:
        operation, self.pending = self.pending, None
        self.feed(self.answer(operation, well))

    def answer(self, operation: Effect | None, well: bool) -> ev.Event:
        match operation:
            case ev.BootVm():
                return ev.Booted() if well else ev.BootFailed("no")
            case ev.RestoreVm():
                return ev.Restored() if well else ev.RestoreFailed("no")
            case ev.SaveVm():
                return ev.Saved() if well else ev.SaveFailed("no")
            case ev.PauseVm():
                return ev.Paused() if well else ev.VmOver(self.vm.boot, "no")
            case ev.ResumeVm():
                return ev.Resumed() if well else ev.VmOver(self.vm.boot, "no")
            case _:
                self.exists = False
                return ev.Destroyed()

    @invariant()
    def never_stuck(self) -> None:
        """Something is under way, a deadline runs, or the VM is at rest."""
        resting = {State.RUNNING, State.PAUSED, State.SAVED, State.GONE, State.ABSENT}
        busy = self.pending is not None or self.vm.deadline is not None
        assert busy or self.vm.state in resting

    def teardown(self) -> None:
        """From anywhere a stop at once ends it."""
        if self.vm.state is State.ABSENT:
            return
        self.feed(ev.Asked(Ask.STOP_NOW))
        if self.pending is not None:
            self.operation_ends(well=True)
        assert self.ended


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
