import pytest

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.events import Key, TransportTrouble
from copilot_agent.protocol.frames import CommandKind, ManagerFrame, Policy, Report, VerdictKind
from copilot_agent.protocol.guest import State
from copilot_agent.protocol.job import FailureClass, Outcome, Phase
from tests.unit.copilot_agent.core.scenes import Scene, attached, ended, job_id, of, offer


def lost(trouble: TransportTrouble = TransportTrouble.UNREACHABLE) -> ev.ConnectionLost:
    return ev.ConnectionLost(trouble, "gone", 0.5)


def test_a_job_goes_all_the_way_and_is_forgotten_after_the_verdict() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    scene.do(ended(key))
    scene.do(ev.StagedOut(key, (), 0.1))
    scene.sent()
    effects = scene.do(ev.ReportSpooled(key))
    report = of(effects, do.SendFrame)[0].frame.reports[0]
    assert (report.outcome, report.usage.cpu_seconds) == (Outcome.SUCCEEDED, 2.0)
    assert do.DropReport(key) in scene.accept_report(key)
    scene.sent()
    assert scene.last_frame.holding == ()


def test_the_first_frame_of_an_attach_asks_for_a_session_and_offers_the_room() -> None:
    scene = Scene()
    assert of(scene.do(ev.Started()), do.Connect) == [do.Connect()]
    frame = of(scene.do(ev.Connected()), do.SendFrame)[0].frame
    assert frame.session is None
    assert (frame.wants.cores, frame.wants.window) == (2, 1)
    assert frame.capabilities is not None


def test_the_unfinished_are_noted_before_staging_begins() -> None:
    scene = attached()
    effects = scene.hear(offers=(offer(1),))
    noted = effects.index(do.KeepUnfinished((Key(job_id(1), 1),)))
    staged = next(i for i, effect in enumerate(effects) if isinstance(effect, do.StageIn))
    assert noted < staged


def test_a_repeated_offer_runs_once_even_after_the_verdict() -> None:
    scene = attached()
    key = scene.start(1)
    assert not of(scene.hear(offers=(offer(1),)), do.StageIn)
    scene.finish(key)
    scene.accept_report(key)
    assert not of(scene.hear(offers=(offer(1),)), do.StageIn)


def test_a_newer_attempt_kills_the_older_which_is_not_reported() -> None:
    scene = attached()
    old = scene.start(1)
    effects = scene.hear(offers=(offer(1, 2),))
    assert [kill.key for kill in of(effects, do.Kill)] == [old]
    effects = scene.do(ended(old, None))
    assert not of(effects, do.SpoolReport)
    assert old not in scene.core.work.attempts
    assert Key(old.job, 2) in scene.core.work.attempts


def test_jobs_wait_for_free_cores_in_the_order_of_their_offers() -> None:
    scene = attached()
    scene.start(1)
    wide = Key(job_id(2), 1)
    scene.hear(offers=(offer(2, cores=2), offer(3)))
    assert not of(scene.do(ev.StagedIn(wide, 0.1, 0)), do.StartPayload)
    assert not of(scene.do(ev.StagedIn(Key(job_id(3), 1), 0.1, 0)), do.StartPayload)
    started = of(scene.do(ended(Key(job_id(1), 1))), do.StartPayload)
    assert [each.offer.job for each in started] == [wide.job]


def test_an_offer_that_can_never_fit_is_given_back_uncharged() -> None:
    scene = attached()
    report = of(scene.hear(offers=(offer(1, cores=64),)), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.HOST
    assert "cores 64 of 2" in report.message


def test_a_cancelled_payload_is_killed_at_once_and_reported_as_cancelled() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    effects = scene.command(1, CommandKind.CANCEL, key)
    assert of(effects, do.Kill)[0].key == key
    report = of(scene.do(ended(key, None)), do.SpoolReport)[0].report
    assert report.outcome is Outcome.CANCELLED


def test_a_repeated_command_is_done_once_and_acknowledged_each_time() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    scene.command(1, CommandKind.CANCEL, key)
    first = scene.last_frame.commands_done
    scene.sent()
    again = scene.command(1, CommandKind.CANCEL, key)
    assert not of(again, do.Kill)
    assert scene.last_frame.commands_done == first != ()


def test_an_abandoned_attempt_is_killed_and_leaves_no_report() -> None:
    scene = attached()
    key = scene.start(1)
    assert of(scene.command(1, CommandKind.ABANDON, key), do.Kill)
    effects = scene.do(ended(key, None))
    assert not of(effects, do.SpoolReport)
    assert do.CleanUp(key) in effects


def test_a_cancel_during_stage_in_waits_until_it_has_stopped() -> None:
    scene = attached()
    key = Key(job_id(1), 1)
    scene.hear(offers=(offer(1),))
    assert do.StopStaging(key) in scene.command(1, CommandKind.CANCEL, key)
    report = of(scene.do(ev.StagingStopped(key)), do.SpoolReport)[0].report
    assert report.outcome is Outcome.CANCELLED


def test_a_failed_payload_still_delivers_its_logs_and_nothing_else() -> None:
    scene = attached()
    key = scene.start(1)
    out = of(scene.do(ended(key, 3)), do.StageOut)[0].offer
    assert [link.name for link in out.outputs] == ["stdout.log", "stderr.log"]
    report = of(scene.do(ev.StagedOut(key, (), 0.1)), do.SpoolReport)[0].report
    assert (report.exit_code, report.failure_class) == (3, FailureClass.PAYLOAD)


def test_a_missing_output_fails_the_payload_by_name_and_still_delivers_the_logs() -> None:
    scene = attached()
    key = scene.start(1)
    scene.do(ended(key))
    text = "result.txt was not made"
    missing = ev.StageOutFailed(key, FailureClass.PAYLOAD, text, retryable=False)
    assert of(scene.do(missing), do.StageOut)
    report = of(scene.do(ev.StagedOut(key, (), 0.1)), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.PAYLOAD
    assert text in report.message


def test_a_hash_that_is_wrong_fails_stage_in_without_another_try() -> None:
    scene = attached()
    scene.hear(offers=(offer(1),))
    failed = ev.StageInFailed(Key(job_id(1), 1), "wrong hash", retryable=False)
    report = of(scene.do(failed), do.SpoolReport)[0].report
    assert report.failure_class is FailureClass.STAGE_IN


def test_uploads_wait_for_a_manager_that_is_away() -> None:
    scene = attached()
    key = scene.start(1)
    scene.do(ended(key))
    scene.do(lost())
    for _ in range(30):
        away = ev.StageOutFailed(key, FailureClass.STAGE_OUT, "refused", retryable=True)
        assert not of(scene.do(away), do.SpoolReport)
        assert of(scene.do(ev.Tick(), after=61), do.StageOut)
    assert of(scene.do(ev.StagedOut(key, (), 0.1)), do.SpoolReport)


def test_uploads_that_go_on_failing_while_the_manager_is_there_fail_the_attempt() -> None:
    scene = attached()
    key = scene.start(1)
    scene.do(ended(key))
    failed = ev.StageOutFailed(key, FailureClass.STAGE_OUT, "HTTP 500", retryable=True)
    reports: list[do.SpoolReport] = []
    for _ in range(8):
        reports += of(scene.do(failed), do.SpoolReport)
        scene.do(ev.Tick(), after=61)
    assert [each.report.failure_class for each in reports] == [FailureClass.STAGE_OUT]


def test_jobs_go_on_without_a_manager_and_their_reports_are_in_the_next_attach() -> None:
    scene = attached()
    key = scene.start(1)
    assert not of(scene.do(lost()), do.Kill)
    scene.finish(key)
    scene.do(ev.Tick(), after=60)
    frame = of(scene.do(ev.Connected()), do.SendFrame)[0].frame
    assert [report.job for report in frame.reports] == [key.job]
    assert frame.holding[0].phase is Phase.REPORTING


def test_an_unanswered_report_is_repeated_at_the_heartbeat_only() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    scene.finish(key)
    scene.sent()
    scene.hear(offers=(offer(2),))
    assert not scene.last_frame.reports
    scene.sent()
    scene.do(ev.Tick(), after=31)
    scene.do(ev.Measured(()))
    assert [report.job for report in scene.last_frame.reports] == [key.job]


def test_frames_wait_for_the_one_before_and_join() -> None:
    scene = attached()
    scene.sent()
    before = len(of(scene.log, do.SendFrame))
    scene.hear(offers=(offer(1),))
    scene.hear(offers=(offer(2),))
    assert len(of(scene.log, do.SendFrame)) == before + 1
    scene.sent()
    assert len(scene.last_frame.holding) == 2


def test_a_retry_that_finds_no_room_waits_for_room_and_not_for_the_clock() -> None:
    scene = attached()
    scene.hear(offers=(offer(1, disk_mib=60), offer(2, disk_mib=60)))
    first = Key(job_id(1), 1)
    scene.do(ev.StageInFailed(first, "cut", retryable=True))
    scene.sent()
    scene.do(ev.Tick(), after=10)
    timers = of(scene.do(ev.Tick(), after=0.001), do.SetTimer)
    assert all(timer.at is None or timer.at > scene.now for timer in timers)
    held = {each.job: each.phase for each in scene.last_frame.holding}
    assert held[first.job] is Phase.QUEUED
    effects = scene.do(ev.StageInFailed(Key(job_id(2), 1), "gone", retryable=False))
    assert [each.offer.job for each in of(effects, do.StageIn)] == [first.job]


def test_news_soon_after_a_frame_share_the_next_one() -> None:
    scene = attached()
    scene.sent()
    scene.hear(offers=(offer(1),))
    before = len(of(scene.log, do.SendFrame))
    scene.do(ev.FrameSent(scene.core.link.sequence), after=0.001)
    for number in (2, 3):
        scene.hear(offers=(offer(number),))
    assert len(of(scene.log, do.SendFrame)) == before
    due = of(scene.log, do.SetTimer)[-1].at
    assert due is not None
    assert due - scene.now <= 0.02, "nothing waits longer"
    (sent,) = of(scene.do(ev.Tick(), after=due - scene.now), do.SendFrame)
    assert len(sent.frame.holding) == 3


def test_an_old_session_is_not_listened_to() -> None:
    scene = attached()
    scene.do(ev.Resumed())
    scene.do(ev.Connected())
    scene.session = 7
    scene.hear()
    scene.session = 1
    assert not of(scene.hear(offers=(offer(1),)), do.StageIn)


def test_reconnects_back_off_with_half_of_it_by_chance() -> None:
    scene = attached()
    delays: list[float] = []
    for _ in range(9):
        scene.do(lost())
        assert scene.core.link.connect_at is not None
        delays.append(scene.core.link.connect_at - scene.now)
        scene.do(ev.Tick(), after=60)
    assert [round(delay, 2) for delay in delays[:4]] == [0.75, 1.5, 3.0, 6.0]
    assert delays[-1] == 45.0


@pytest.mark.parametrize(("period", "due"), [(60.0, 30.0), (10.0, 5.0), (30.0, 15.0)])
def test_a_new_heartbeat_period_counts_from_now_on_and_in_proportion(
    period: float, due: float
) -> None:
    """A fleet's heartbeats would all fall into one instant if each began anew with the policy."""
    scene = attached()
    scene.sent()
    scene.now = 100.0 + 15.0
    policy = Policy(heartbeat_seconds=period, lease_seconds=300)
    scene.do(ev.FrameReceived(ManagerFrame(session=1, server_time=1.0, policy=policy)))
    assert not of(scene.do(ev.Tick(), after=due - 0.1), do.SendFrame)
    assert of(scene.do(ev.Tick(), after=0.2), do.SendFrame)
    scene.sent()
    assert not of(scene.do(ev.Tick(), after=period - 1), do.SendFrame)
    assert of(scene.do(ev.Tick(), after=1), do.SendFrame)


def test_where_leases_are_short_a_pilot_is_back_within_one() -> None:
    scene = attached()
    policy = Policy(heartbeat_seconds=1, lease_seconds=10)
    scene.do(ev.TokenObtained("p-" + "0" * 20, 100.0, policy))
    for _ in range(9):
        scene.do(lost())
        assert scene.core.link.connect_at is not None
        assert scene.core.link.connect_at - scene.now < policy.lease_seconds / 2
        scene.do(ev.Tick(), after=60)


def test_a_refused_token_is_renewed_at_once_and_then_with_back_off() -> None:
    scene = attached()
    assert do.Connect(renew=True) in scene.do(lost(TransportTrouble.TOKEN))
    assert not of(scene.do(lost(TransportTrouble.TOKEN)), do.Connect)


def test_a_token_is_renewed_before_it_runs_out() -> None:
    scene = attached()
    scene.do(ev.TokenObtained("p-" + "0" * 20, 100.0, None))
    assert do.RenewToken() not in scene.do(ev.Tick(), after=69)
    assert do.RenewToken() in scene.do(ev.Tick(), after=2)


def test_a_restarted_agent_reports_what_it_had_as_the_hosts_fault() -> None:
    scene = Scene()
    spooled = Report(job=job_id(1), attempt=1, outcome=Outcome.SUCCEEDED)
    keys = (Key(job_id(1), 1), Key(job_id(2), 3))
    effects = scene.do(ev.Started(keys, (spooled,)))
    report = of(effects, do.SpoolReport)[0].report
    assert (report.job, report.attempt) == (job_id(2), 3)
    assert report.failure_class is FailureClass.HOST
    scene.do(ev.ReportSpooled(keys[1]))
    frame = of(scene.do(ev.Connected()), do.SendFrame)[0].frame
    assert {each.job for each in frame.reports} == {job_id(1), job_id(2)}


def test_expired_links_are_asked_for_until_they_come() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    scene.do(ev.LinksWanted(key))
    assert scene.last_frame.link_requests[0].job == key.job
    scene.do(lost())
    scene.do(ev.Tick(), after=60)
    frame = of(scene.do(ev.Connected()), do.SendFrame)[0].frame
    assert frame.link_requests[0].job == key.job


def test_a_report_that_cannot_be_written_is_sent_from_memory() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    scene.do(ended(key))
    scene.do(ev.StagedOut(key, (), 0.1))
    scene.sent()
    effects = scene.do(ev.ReportSpooled(key, problem="no space left"))
    assert of(effects, do.SendFrame)[0].frame.reports
    assert of(effects, do.Note)[0].level == "error"


def test_a_superseded_report_is_dropped_too() -> None:
    scene = attached()
    key = scene.start(1)
    scene.finish(key)
    assert do.DropReport(key) in scene.accept_report(key, VerdictKind.SUPERSEDED)
    assert (scene.core.work.succeeded, scene.core.work.failed) == (0, 0)


def test_the_launcher_hears_each_change_of_state_once() -> None:
    scene = attached(launcher=True)
    key = scene.start(1)
    scene.finish(key)
    scene.accept_report(key)
    messages = [effect.message for effect in of(scene.log, do.TellLauncher)]
    states = [each.state for each in messages if isinstance(each, State)]
    assert [a for a, b in zip(states, [*states[1:], ""], strict=True) if a != b] == [
        "connecting",
        "idle",
        "working",
        "idle",
    ]


def test_progress_rides_on_heartbeats() -> None:
    scene = attached()
    key = scene.start(1)
    scene.sent()
    assert of(scene.do(ev.Tick(), after=31), do.Measure)
    usage = ended(key).usage
    scene.do(ev.Measured((ev.Sample(key, usage, 0.5, "half way"),)))
    news = scene.last_frame.progress[0]
    assert (news.fraction, news.log_tail, news.cpu_seconds) == (0.5, "half way", 2.0)
