"""Anything in any order: offers, verdicts, commands, broken connections, failures, restarts."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.attempts import ON_DISK, UNFINISHED, Stage
from copilot_agent.core.effects import Effect
from copilot_agent.core.events import Key, TransportTrouble
from copilot_agent.core.link import LinkState
from copilot_agent.core.speech import FRAME_GAP_SECONDS
from copilot_agent.protocol.frames import CommandKind, Report, VerdictKind
from copilot_agent.protocol.job import FailureClass
from tests.unit.copilot_agent.core.scenes import Scene, command_id, ended, job_id, offer

CORES, DISK = 2, 4
JOBS = st.integers(min_value=1, max_value=4)
ATTEMPTS = st.integers(min_value=1, max_value=3)
SELDOM = st.integers(min_value=0, max_value=5)
CHOICE = st.integers(min_value=0, max_value=1000)


class PilotMachine(RuleBasedStateMachine):
    """Plays shell and manager; keeps its own books and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(cores=CORES, disk_mib=DISK)
        self.staging_in: list[Key] = []
        self.staging_out: list[Key] = []
        self.running: dict[Key, int] = {}
        self.spooling: list[Key] = []
        self.disk: dict[Key, Report] = {}
        self.noted: tuple[Key, ...] = ()
        self.stop_asked: list[Key] = []
        self.ran: set[Key] = set()
        self.ended: set[Key] = set()
        self.answered: set[Key] = set()
        self.abandoned: set[Key] = set()
        self.told: set[Key] = set()
        self.commands = 0
        self.run(self.scene.do(ev.Started()))
        self.connection_is_made()
        self.attach_is_answered()

    # ----- the shell

    def run(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case do.StageIn():
                key = _key(effect.offer.job, effect.offer.attempt)
                assert key in self.noted, "staged in before it was noted"
                self.staging_in.append(key)
            case do.StartPayload():
                self.start(effect)
            case do.StageOut():
                self.staging_out.append(_key(effect.offer.job, effect.offer.attempt))
            case do.StopStaging():
                assert effect.key in self.staging_in + self.staging_out
                self.stop_asked.append(effect.key)
            case do.Kill():
                assert effect.key in self.running
            case _:
                self.keep(effect)

    def keep(self, effect: Effect) -> None:
        match effect:
            case do.SpoolReport():
                key = _key(effect.report.job, effect.report.attempt)
                assert key not in self.disk, "reported twice"
                self.disk[key] = effect.report
                self.spooling.append(key)
            case do.DropReport():
                assert effect.key in self.answered | self.abandoned, "dropped without an answer"
                self.disk.pop(effect.key, None)
            case do.KeepUnfinished():
                self.noted = effect.keys
            case do.SendFrame():
                for report in effect.frame.reports:
                    key = _key(report.job, report.attempt)
                    assert self.disk.get(key) == report, "sent before it was on disk"
                    assert key not in self.spooling
                    self.told.add(key)
            case _:
                pass

    def start(self, effect: do.StartPayload) -> None:
        key = _key(effect.offer.job, effect.offer.attempt)
        assert key not in self.ran, "ran twice"
        self.ran.add(key)
        self.running[key] = effect.offer.spec.requirements.cores
        assert sum(self.running.values()) <= CORES, "more cores than there are"

    def pick(self, keys: list[Key], choice: int) -> Key:
        return keys.pop(choice % len(keys))

    @rule(choice=CHOICE, how=st.sampled_from(["well", "well", "well", "badly", "again"]))
    @precondition(lambda self: self.staging_in)
    def stage_in_ends(self, choice: int, how: str) -> None:
        key = self.pick(self.staging_in, choice)
        self.forget_stop(key)
        if how == "well":
            self.run(self.scene.do(ev.StagedIn(key, 0.1, 10)))
        else:
            self.run(self.scene.do(ev.StageInFailed(key, "no", retryable=how == "again")))

    @rule(choice=CHOICE, how=st.sampled_from(["well", "missing", "again"]))
    @precondition(lambda self: self.staging_out)
    def stage_out_ends(self, choice: int, how: str) -> None:
        key = self.pick(self.staging_out, choice)
        self.forget_stop(key)
        if how == "well":
            self.run(self.scene.do(ev.StagedOut(key, (), 0.1)))
            return
        kind = FailureClass.PAYLOAD if how == "missing" else FailureClass.STAGE_OUT
        self.run(self.scene.do(ev.StageOutFailed(key, kind, "no", retryable=how == "again")))

    @rule(choice=CHOICE)
    @precondition(lambda self: self.stop_asked)
    def staging_stops(self, choice: int) -> None:
        key = self.pick(self.stop_asked, choice)
        for work in (self.staging_in, self.staging_out):
            if key in work:
                work.remove(key)
        self.run(self.scene.do(ev.StagingStopped(key)))

    def forget_stop(self, key: Key) -> None:
        """It ended by itself; the shell still answers the request to stop, later or never."""
        if key in self.stop_asked:
            self.stop_asked.remove(key)

    @rule(choice=CHOICE, exit_code=st.sampled_from([0, 3]))
    @precondition(lambda self: self.running)
    def payload_ends(self, choice: int, exit_code: int) -> None:
        key = sorted(self.running)[choice % len(self.running)]
        del self.running[key]
        self.ended.add(key)
        self.run(self.scene.do(ended(key, exit_code)))

    @rule(choice=CHOICE)
    @precondition(lambda self: self.spooling)
    def report_is_on_disk(self, choice: int) -> None:
        key = self.pick(self.spooling, choice)
        self.run(self.scene.do(ev.ReportSpooled(key)))

    @rule(seconds=st.floats(min_value=0.1, max_value=100))
    def time_passes(self, seconds: float) -> None:
        self.run(self.scene.do(ev.Tick(), after=seconds))

    @rule()
    @precondition(lambda self: self.scene.core.link.in_flight is not None)
    def frame_is_written(self) -> None:
        self.run(self.scene.do(ev.FrameSent(self.scene.core.link.sequence)))
        self.run(self.scene.do(ev.Tick(), after=FRAME_GAP_SECONDS))

    # ----- the manager

    @rule(first=JOBS, second=JOBS, attempt=ATTEMPTS, cores=st.integers(1, CORES))
    @precondition(lambda self: self.scene.core.link.attached)
    def manager_offers(self, first: int, second: int, attempt: int, cores: int) -> None:
        offers = (offer(first, attempt, cores=cores), offer(second, attempt, disk_mib=2))
        for each in offers:
            older = [k for k in self.scene.core.work.attempts if k.job == each.job]
            self.abandoned |= {key for key in older if key.attempt < attempt}
        self.run(self.scene.hear(offers=offers))

    @rule(choice=CHOICE, kind=st.sampled_from(VerdictKind))
    @precondition(lambda self: self.scene.core.link.attached and self.told)
    def manager_answers(self, choice: int, kind: VerdictKind) -> None:
        key = sorted(self.told)[choice % len(self.told)]
        self.answered.add(key)
        self.run(self.scene.accept_report(key, kind))
        assert key not in self.scene.core.work.attempts, "held after the verdict"

    @rule(
        job=JOBS,
        attempt=ATTEMPTS,
        kind=st.sampled_from([CommandKind.CANCEL, CommandKind.ABANDON]),
        again=st.booleans(),
    )
    @precondition(lambda self: self.scene.core.link.attached)
    def manager_ends_a_job(self, job: int, attempt: int, kind: CommandKind, again: bool) -> None:
        key = Key(job_id(job), attempt)
        if kind is CommandKind.ABANDON and key in self.scene.core.work.attempts:
            self.abandoned.add(key)
        self.commands += 1
        self.run(self.scene.command(self.commands, kind, key))
        if again:
            self.run(self.scene.command(self.commands, kind, key))

    @rule(kind=st.sampled_from([CommandKind.DRAIN, CommandKind.UNDRAIN, CommandKind.RENEW_TOKEN]))
    @precondition(lambda self: self.scene.core.link.attached)
    def manager_commands(self, kind: CommandKind) -> None:
        self.commands += 1
        self.scene.now += FRAME_GAP_SECONDS
        self.run(self.scene.command(self.commands, kind))
        assert command_id(self.commands) not in self.scene.core.errands.commands_done or (
            self.scene.core.link.in_flight is not None
        )

    @rule()
    @precondition(lambda self: self.scene.core.link.state is LinkState.CONNECTING)
    def connection_is_made(self) -> None:
        effects = self.scene.do(ev.Connected())
        sent = [effect for effect in effects if isinstance(effect, do.SendFrame)]
        reporting = {
            a.key for a in self.scene.core.work.attempts.values() if a.stage is Stage.REPORTING
        }
        told = {_key(report.job, report.attempt) for report in sent[0].frame.reports}
        assert told == reporting, "an attach leaves a report out"
        self.run(effects)

    @rule()
    @precondition(lambda self: self.scene.core.link.state is LinkState.ATTACHING)
    def attach_is_answered(self) -> None:
        self.scene.session += 1
        self.run(self.scene.hear())

    @rule(
        trouble=st.sampled_from(
            [TransportTrouble.UNREACHABLE, TransportTrouble.TOKEN, TransportTrouble.SUPERSEDED]
        ),
        seldom=SELDOM,
    )
    @precondition(lambda self: self.scene.core.link.state is not LinkState.OFFLINE)
    def connection_breaks(self, trouble: TransportTrouble, seldom: int) -> None:
        if seldom:
            return
        self.run(self.scene.do(ev.ConnectionLost(trouble, "gone", 0.5)))

    # ----- the computer

    @rule(
        how=st.sampled_from([ev.PauseSoon(1.0), ev.Resumed(), ev.ClockJumped(100.0)]),
        seldom=SELDOM,
    )
    def computer_pauses(self, how: ev.Event, seldom: int) -> None:
        if seldom:
            return
        self.run(self.scene.do(how))

    @rule(seldom=SELDOM)
    def agent_dies_and_is_started_again(self, seldom: int) -> None:
        """Payloads die with it; what is noted and spooled is all that is left."""
        if seldom:
            return
        in_progress = set(self.noted) - set(self.disk)
        self.staging_in, self.staging_out, self.stop_asked = [], [], []
        self.running = {}
        self.spooling = []
        self.ran -= self.answered  # the manager does not offer again what it has answered
        session, now = self.scene.session, self.scene.now
        self.scene = Scene(cores=CORES, disk_mib=DISK)
        self.scene.session, self.scene.now = session, now
        self.run(self.scene.do(ev.Started(self.noted, tuple(self.disk.values()))))
        for key in in_progress:
            assert self.disk[key].failure_class is FailureClass.HOST

    # ----- always

    @invariant()
    def books_agree(self) -> None:
        held = self.scene.core.work.attempts
        assert {key for key, a in held.items() if a.stage is Stage.RUNNING} == set(self.running)
        assert {key for key, a in held.items() if a.stage in UNFINISHED} <= set(self.noted)

    @invariant()
    def disk_is_not_oversubscribed(self) -> None:
        held = self.scene.core.work.attempts.values()
        assert sum(a.needs.disk_mib for a in held if a.stage in ON_DISK) <= DISK

    @invariant()
    def every_end_is_reported_until_it_is_answered(self) -> None:
        held = self.scene.core.work.attempts
        for key in self.ended - self.answered - self.abandoned:
            assert key in held
        assert set(self.disk) <= set(held)

    @invariant()
    def one_frame_at_a_time(self) -> None:
        core = self.scene.core
        if core.link.state is LinkState.OFFLINE:
            assert core.link.in_flight is None


def _key(job: str, attempt: int) -> Key:
    return Key(job, attempt)


TestPilot = PilotMachine.TestCase
TestPilot.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
