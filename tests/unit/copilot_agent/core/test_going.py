"""A pilot that drains, pauses, stops or is sent away."""

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.events import Key, TransportTrouble
from copilot_agent.protocol.frames import Command, CommandKind
from copilot_agent.protocol.guest import PauseOk
from copilot_agent.protocol.job import FailureClass
from tests.unit.copilot_agent.core.scenes import (
    Scene,
    attached,
    command_id,
    ended,
    job_id,
    of,
    offer,
)


def lost(trouble: TransportTrouble = TransportTrouble.UNREACHABLE) -> ev.ConnectionLost:
    return ev.ConnectionLost(trouble, "gone", 0.5)


def test_a_retired_pilot_kills_everything_reports_nothing_and_leaves() -> None:
    scene = attached()
    key = scene.start(1)
    assert of(scene.do(lost(TransportTrouble.RETIRED)), do.Kill)
    effects = scene.do(ended(key, None))
    assert effects[-1] == do.Finish(3)
    assert not of(effects, do.SpoolReport)


def test_a_stopping_agent_reports_and_leaves_at_the_last_verdict() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    assert of(scene.do(ev.StopAsked(5.0)), do.Kill)
    report = of(scene.do(ended(key, None)), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.VOLUNTEER_LEFT
    scene.sent()
    scene.do(ev.ReportSpooled(key))
    scene.sent()
    assert not scene.core.finished
    scene.accept_report(key)
    assert scene.log[-1] == do.Finish(0)


def test_an_idle_agent_says_good_bye_before_it_leaves() -> None:
    scene = attached()
    scene.sent()
    effects = scene.do(ev.StopAsked(5.0))
    (farewell,) = of(effects, do.SendFrame)
    assert farewell.frame.leaving
    assert not scene.core.finished
    assert scene.do(ev.FrameSent(farewell.frame.sequence))[-1] == do.Finish(0)


def test_an_agent_without_a_connection_leaves_without_a_word() -> None:
    scene = attached()
    scene.do(lost())
    assert scene.do(ev.StopAsked(5.0))[-1] == do.Finish(0)


def test_a_stopping_agent_does_not_wait_longer_than_told() -> None:
    scene = attached()
    scene.start(1)
    scene.do(ev.StopAsked(5.0))
    assert scene.do(ev.Tick(), after=5.1)[-1] == do.Finish(0)


def test_a_draining_pilot_wants_nothing_and_gives_crossed_offers_back() -> None:
    scene = attached()
    scene.start(1)
    scene.sent()
    scene.command(1, CommandKind.DRAIN)
    assert (scene.last_frame.wants.cores, scene.last_frame.draining) == (0, True)
    report = of(scene.hear(offers=(offer(2),)), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.PREEMPTED
    assert Key(job_id(1), 1) in scene.core.work.attempts
    scene.sent()
    scene.command(2, CommandKind.UNDRAIN)
    assert scene.last_frame.wants.cores == 2


def test_a_drain_deadline_ends_what_is_left() -> None:
    scene = attached()
    key = scene.start(1)
    scene.do(ev.DrainAsked(deadline_seconds=10.0))
    assert not of(scene.do(ev.Tick(), after=9), do.Kill)
    assert [kill.key for kill in of(scene.do(ev.Tick(), after=2), do.Kill)] == [key]


def test_pause_ok_follows_the_written_frame() -> None:
    scene = attached()
    scene.sent()
    effects = scene.do(ev.PauseSoon(1.0))
    assert of(effects, do.SendFrame)[0].frame.paused
    assert do.TellLauncher(PauseOk()) not in effects
    assert do.TellLauncher(PauseOk()) in scene.sent()


def test_pause_ok_does_not_wait_for_a_slow_connection() -> None:
    scene = attached()
    scene.do(ev.PauseSoon(1.0))
    assert do.TellLauncher(PauseOk()) in scene.do(ev.Tick(), after=0.041)
    assert do.TellLauncher(PauseOk()) not in scene.sent()


def test_pause_ok_comes_at_once_without_a_connection() -> None:
    scene = Scene()
    assert do.TellLauncher(PauseOk()) in scene.do(ev.PauseSoon(1.0))


def test_after_a_pause_the_pilot_attaches_again_unpaused() -> None:
    scene = attached()
    scene.start(1)
    scene.do(ev.PauseSoon(1.0))
    effects = scene.do(ev.Resumed())
    assert [type(e) for e in effects if isinstance(e, do.Disconnect | do.Connect)] == [
        do.Disconnect,
        do.Connect,
    ]
    frame = of(scene.do(ev.Connected()), do.SendFrame)[0].frame
    assert not frame.paused
    assert len(frame.holding) == 1


def test_a_pause_that_never_comes_is_forgotten() -> None:
    scene = attached()
    scene.do(ev.PauseSoon(1.0))
    scene.sent()
    scene.do(ev.Tick(), after=6.1)
    assert not scene.last_frame.paused


def test_a_clock_jump_means_a_new_attach() -> None:
    scene = attached()
    assert of(scene.do(ev.ClockJumped(3600.0)), do.Connect)


def given_back(effects: list[do.Effect]) -> list[tuple[str, FailureClass | None]]:
    return [(one.report.job, one.report.failure_class) for one in of(effects, do.SpoolReport)]


def test_a_drain_gives_back_at_once_what_has_not_begun() -> None:
    scene = attached()
    running = scene.start(1)
    scene.start(2)
    scene.hear(offers=(offer(3), offer(4)))
    staged, staging = Key(job_id(3), 1), Key(job_id(4), 1)
    scene.do(ev.StagedIn(staged, 0.1, 0))
    effects = scene.command(1, CommandKind.DRAIN)
    assert given_back(effects) == [(staged.job, FailureClass.PREEMPTED)]
    assert of(effects, do.StopStaging) == [do.StopStaging(staging)]
    assert not of(effects, do.Kill)
    effects = scene.do(ev.StagingStopped(staging))
    assert given_back(effects) == [(staging.job, FailureClass.PREEMPTED)]
    assert running in [attempt.key for attempt in scene.core.work.running]


def test_the_operators_undo_leaves_the_volunteers_drain() -> None:
    scene = attached()
    scene.do(ev.DrainAsked())
    scene.command(1, CommandKind.DRAIN)
    scene.sent()
    scene.command(2, CommandKind.UNDRAIN)
    scene.sent()
    assert scene.core.draining
    report = of(scene.hear(offers=(offer(1),)), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.PREEMPTED
    scene.do(ev.DrainAsked(undo=True))
    assert not scene.core.draining


def test_the_earlier_of_two_deadlines_comes_first_and_each_once() -> None:
    scene = attached()
    key = scene.start(1)
    scene.do(ev.DrainAsked(deadline_seconds=30.0))
    command = Command(id=command_id(1), kind=CommandKind.DRAIN, deadline_seconds=10.0)
    scene.hear(commands=(command,))
    effects = scene.do(ev.Tick(), after=11)
    (kill,) = of(effects, do.Kill)
    assert (kill.key, kill.failure_class) == (key, FailureClass.PREEMPTED)
    assert not of(scene.do(ev.Tick(), after=1), do.Kill)


def test_an_undone_drain_has_no_deadline() -> None:
    scene = attached()
    scene.start(1)
    scene.do(ev.DrainAsked(deadline_seconds=10.0))
    scene.do(ev.DrainAsked(undo=True))
    assert not of(scene.do(ev.Tick(), after=60), do.Kill)
