"""Whatever client, guest and VM do in whatever order: an honest account, and one end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from copilot_agent.protocol import guest
from vm_launcher.core import events as ev
from vm_launcher.core import task_events as tev
from vm_launcher.core.events import Ask
from vm_launcher.core.states import Rules, State
from vm_launcher.core.task import Task, TaskRules
from vm_launcher.core.task_progress import Meter, Progress
from vm_launcher.core.vm import Vm

OPERATIONS = (ev.BootVm, ev.PauseVm, ev.ResumeVm, ev.SaveVm, ev.RestoreVm, ev.DestroyVm)
ORDERS = [tev.Suspend(), tev.Resume(), tev.Quit("gone"), tev.Abort(), tev.FinishSoon()]
MESSAGES: list[guest.GuestMessage] = [
    guest.Hello(epoch=1, agent_version="1.0.0"),
    guest.Ready(pilot_key="A" * 43),
    guest.PauseOk(),
    *(
        guest.State(state=state)
        for state in ("connecting", "idle", "working", "drained", "retired", "failed")
    ),
]
RULES = TaskRules(
    task_seconds=120, grace_seconds=30, idle_seconds=20, idle_end_seconds=60, trickle_seconds=15,
    checkpoint_seconds=10, save_seconds=45, stop_seconds=7, most_receipts=20,
)  # fmt: skip
LOOK = 1.0
PAUSED_BY = RULES.short_pause_seconds + Rules().pause_seconds + 2 * LOOK


class AnyOrder(RuleBasedStateMachine):
    """The real core of the VM below, a driver that answers each operation in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.wall = 1000.0, 1.7e9
        self.vm = Vm(Rules())
        self.pending: ev.Effect | None = None
        self.held = False
        self.cpu: float | None = None
        self.receipts, self.receipts_cpu = 0, 0.0
        self.counts = (0, 0)
        self.guest_state = ""
        self.told = 0.0
        self.asked_now = False
        self.leave_by: float | None = None
        """A stop by force is to be asked for by then."""
        self.suspended_since: float | None = None
        self.endings: list[tev.Ending] = []
        self.over = False
        self.seen = (0.0, 0.0)

    @initialize(
        saved=st.booleans(),
        before=st.sampled_from([0.0, 100.0]),
        up=st.sampled_from([True, True, False]),
        slow=st.sampled_from([False, False, True]),
    )
    def begin(self, saved: bool, before: float, up: bool, slow: bool) -> None:
        progress = Progress(running_seconds=before)
        self.task = Task(RULES, progress, Meter(before, before if saved else 0.0))
        self.cpu = before if saved else None
        self.before, self.slow = before, slow
        self.to_vm(ev.Begin(saved=saved))
        while up and self.vm.state is not State.RUNNING:
            if self.pending is not None:
                self.operation_ends(well=True)
            self.guest_says(MESSAGES[0])
        if up:
            self.guest_says(MESSAGES[1])

    def to_task(self, event: tev.TaskEvent) -> None:
        assert not self.over
        for effect in self.task.handle(event, self.now):
            match effect:
                case tev.AskVm(ask, reason):
                    self.asked_now |= ask is Ask.STOP_NOW
                    self.to_vm(ev.Asked(ask, reason))
                case tev.HoldVm(held):
                    self.held = held
                case tev.Trickle(seconds, total):
                    assert seconds > 0
                    self.told += seconds
                    assert abs(self.told - total) < 1e-6
                case tev.Leave() | tev.Postpone() | tev.Finish():
                    assert isinstance(event, tev.VmEnded), "it ends when the VM has, not before"
                    self.endings.append(effect)

    def to_vm(self, event: ev.Event) -> None:
        for effect in self.vm.handle(event, self.now):
            if isinstance(effect, OPERATIONS):
                self.pending = effect
            elif isinstance(effect, ev.End):
                self.over_with(effect)

    def over_with(self, end: ev.End) -> None:
        self.look()
        self.to_task(tev.VmEnded(end))
        self.over = True
        (ending,) = self.endings
        if isinstance(ending, tev.Finish):
            assert (ending.status == 0) == (self.receipts > 0)
        if isinstance(ending, tev.Leave):
            assert ending.saved == (end.outcome is ev.Outcome.SAVED) or ending.status

    def look(self) -> None:
        view = tev.View(
            self.vm.state, self.guest_state, self.vm.boot, *self.counts,
            receipts=self.receipts, receipts_cpu_seconds=self.receipts_cpu, cpu_seconds=self.cpu,
        )  # fmt: skip
        self.to_task(tev.Looked(view, self.wall))

    @precondition(lambda self: not self.over)
    @rule(order=st.sampled_from(ORDERS))
    def client_says(self, order: tev.TaskEvent) -> None:
        limits = {tev.Quit: RULES.save_seconds, tev.Abort: RULES.stop_seconds}
        if (limit := limits.get(type(order))) is not None:
            by = self.now + limit + 2 * LOOK
            self.leave_by = by if self.leave_by is None else min(by, self.leave_by)
        self.to_task(order)
        if not self.task.suspended:
            self.suspended_since = None
        elif self.suspended_since is None:
            self.suspended_since = self.now

    @precondition(lambda self: not self.over)
    @rule(times=st.integers(1, 5))
    def client_throttles(self, times: int) -> None:
        for order in [*[tev.Suspend(), tev.Resume()] * times, tev.Suspend()]:
            self.time_passes(1, 0.0)
            if not self.over:
                self.client_says(order)

    @precondition(lambda self: not self.over)
    @rule(message=st.sampled_from(MESSAGES))
    def guest_says(self, message: guest.GuestMessage) -> None:
        if isinstance(message, guest.State):
            self.guest_state = message.state
        self.to_vm(ev.Heard(self.vm.boot, message))

    @precondition(lambda self: not self.over)
    @rule(counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
    def guest_counts(self, counts: tuple[int, int]) -> None:
        self.counts = counts

    @precondition(lambda self: not self.over)
    @rule(many=st.integers(1, 12), seconds=st.integers(0, 10_000))
    def receipts_come(self, many: int, seconds: int) -> None:
        self.receipts += many
        self.receipts_cpu += many * seconds / 7

    @rule(seconds=st.sampled_from([1, 3, 12, 60]), wall=st.sampled_from([0.0, 0.0, 1e5, -1e5]))
    def time_passes(self, seconds: int, wall: float) -> None:
        self.wall += wall
        for _ in range(seconds):
            if self.over:
                return
            self.now += LOOK
            self.wall += LOOK
            if self.vm.state is State.RUNNING and not self.held and self.cpu is not None:
                self.cpu += LOOK
            if self.pending is not None and not self.slow:
                self.operation_ends(well=True)
            if self.vm.deadline is not None and self.now >= self.vm.deadline:
                self.to_vm(ev.Tick())
            if not self.over:
                self.look()
            if not self.over:
                self.in_time()

    def in_time(self) -> None:
        if self.leave_by is not None and self.now > self.leave_by:
            assert self.asked_now or self.over, "what is to leave is forced to"
        since = self.suspended_since
        if since is not None and self.task.suspended and self.now > since + PAUSED_BY:
            assert self.vm.state is not State.RUNNING, "a suspended task does not compute"

    @precondition(lambda self: not self.over)
    @rule()
    def vm_dies(self) -> None:
        self.to_vm(ev.VmOver(self.vm.boot, "died"))

    @precondition(lambda self: not self.over and self.pending is not None)
    @rule(well=st.sampled_from([True, True, True, False]))
    def operation_ends(self, well: bool) -> None:
        operation, self.pending = self.pending, None
        self.to_vm(self.answer(operation, well))

    def answer(self, operation: ev.Effect | None, well: bool) -> ev.Event:
        match operation:
            case ev.BootVm():
                self.cpu = 0.0
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
                return ev.Destroyed()

    @invariant()
    def honest(self) -> None:
        if not hasattr(self, "task"):
            return
        fraction, meter = self.task.fraction, self.task.meter
        assert self.seen[0] <= fraction < 1
        assert self.task.progress.running_seconds <= self.now - 1000.0 + self.before
        assert self.seen[1] <= meter.total
        assert meter.checkpoint <= meter.total
        assert self.told <= self.receipts_cpu + 1e-6, "no more than receipts say"
        rests = self.task.suspended and self.leave_by is None
        assert self.over or rests or not self.held, "held, it does not hear what it is asked"
        self.seen = fraction, meter.total

    def teardown(self) -> None:
        """An abort ends it, from anywhere, in time."""
        if self.over or not hasattr(self, "task"):
            return
        self.to_task(tev.Abort())
        for _ in range(10):
            if not self.over and self.pending is not None:
                self.operation_ends(well=True)
            self.time_passes(1, 0.0)
        assert self.over
        assert self.endings == [tev.Leave(194)]


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTaskAnyOrder = AnyOrder.TestCase
