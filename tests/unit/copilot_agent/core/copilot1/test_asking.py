"""How an agent comes to a job of an original manager, by the clock of the originals."""

from itertools import pairwise

import pytest

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.copilot1 import job_commands as job
from tests.unit.copilot_agent.core.copilot1.scene import (
    ALPHA,
    BETA,
    MANAGERS,
    STRANGER,
    Scene,
    run_job,
)


def test_a_job_is_asked_of_all_and_taken_from_the_first_who_has_one() -> None:
    scene = Scene()
    scene.ready()
    assert (scene.last.to, type(scene.last.command)) == (MANAGERS, job.WantJob)
    scene.hears(BETA, job.HaveJob())
    assert (scene.last.to, type(scene.last.command)) == (BETA, job.GetJob)
    assert scene.hears(ALPHA, job.HaveJob()) == []
    scene.hears(BETA, run_job())
    taken = scene.one(w.Take)
    assert (taken.assignment.job, taken.assignment.giver) == ("job-1", BETA)
    assert taken.assignment.job_data == "startedAt=5####"
    assert len({each.id for _, each in scene.said}) == 2


def test_silence_is_met_with_longer_and_longer_pauses_but_never_less_than_a_minute() -> None:
    scene = Scene()
    scene.ready()
    scene.until(3900)
    gaps = [after - before for before, after in pairwise(scene.times(job.WantJob))]
    assert gaps == [61, 120, 240, 480, 960, 1920, 61]


def test_a_short_job_is_not_followed_by_a_request_that_would_be_answered_with_sleep() -> None:
    scene = Scene()
    scene.takes_a_job()
    scene.until(5)
    scene.happens(w.Room(free=True))
    scene.until(200)
    assert scene.times(job.WantJob)[:2] == [0, 61]


def test_an_agent_that_follows_another_one_waits_for_the_account_s_turn() -> None:
    scene = Scene(ask_at=40)
    scene.ready()
    scene.until(100)
    assert scene.times(job.WantJob)[0] == 40


def test_a_manager_that_never_gives_its_job_is_left_after_a_minute() -> None:
    scene = Scene()
    scene.ready()
    scene.until(30)
    scene.hears(ALPHA, job.HaveJob())
    scene.until(95)
    assert scene.times(job.WantJob) == [0, 90]
    scene.hears(BETA, job.HaveJob())
    assert scene.last.to == BETA


def test_a_job_that_comes_late_is_not_lost() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    scene.until(70)
    assert len(scene.times(job.WantJob)) == 2
    scene.hears(ALPHA, run_job())
    assert scene.one(w.Take).assignment.giver == ALPHA
    assert scene.hears(BETA, job.HaveJob()) == []


@pytest.mark.parametrize("sender", [BETA, STRANGER, MANAGERS])
def test_a_job_from_somebody_else_than_was_asked_is_not_taken(sender: str) -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    scene.hears(sender, run_job())
    assert not scene.all(w.Take)
    scene.hears(ALPHA, run_job())
    assert scene.all(w.Take)


def test_an_offer_of_a_stranger_is_not_one() -> None:
    scene = Scene()
    scene.ready()
    assert scene.hears(STRANGER, job.HaveJob()) == []


def test_a_second_job_is_not_taken_beside_the_first() -> None:
    scene = Scene()
    scene.takes_a_job()
    scene.hears(ALPHA, run_job("job-2"))
    assert not scene.all(w.Take)


def test_sleep_while_asking_or_holding_changes_nothing() -> None:
    plain, disturbed = Scene(), Scene()
    for scene in (plain, disturbed):
        scene.ready()
    disturbed.hears(BETA, job.Sleep())
    for scene in (plain, disturbed):
        scene.hears(ALPHA, job.HaveJob())
    disturbed.hears(BETA, job.Sleep())
    for scene in (plain, disturbed):
        scene.hears(ALPHA, run_job())
    disturbed.hears(BETA, job.Sleep())
    for scene in (plain, disturbed):
        scene.until(10)
        scene.happens(w.Room(free=True))
        scene.until(500)
    assert disturbed.said == plain.said


def test_sleep_between_two_requests_delays_the_next_one_a_little() -> None:
    scene = Scene()
    scene.takes_a_job()
    scene.until(30)
    scene.happens(w.Room(free=True))
    scene.hears(BETA, job.Sleep())
    scene.until(100)
    assert scene.times(job.WantJob) == [0, 91]


def test_a_manager_whose_file_is_missing_is_passed_over_for_another_one() -> None:
    scene = Scene()
    scene.ready()
    for _ in range(10):  # the original kills itself at the fourth
        scene.hears(ALPHA, job.HaveJob(require_file="/cvmfs/x"), file_there=False)
    scene.hears(BETA, job.HaveJob(require_file="/etc/passwd"), file_there=True)
    assert scene.last.to == BETA


def test_a_redirect_is_not_obeyed() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.Redirect(referral=STRANGER, info={"command": "getJob"}))
    assert scene.all(w.Note)
    assert not scene.all(w.Say)


def test_an_error_of_the_chosen_ends_the_waiting_for_it() -> None:
    scene = Scene()
    scene.ready()
    scene.until(20)
    scene.hears(ALPHA, job.HaveJob())
    scene.hears(STRANGER, job.ErrorCommand(error_string="x"))
    scene.hears(ALPHA, job.ErrorCommand(error_string="no\nway"))
    assert scene.one(w.Note).message == f"{ALPHA} says: no way"
    scene.until(62)
    assert scene.times(job.WantJob) == [0, 61]


def test_a_chosen_manager_that_is_gone_is_not_waited_for() -> None:
    scene = Scene()
    scene.ready()
    scene.until(20)
    scene.hears(ALPHA, job.HaveJob())
    scene.happens(w.Bounced(scene.last.id))
    scene.until(62)
    assert scene.times(job.WantJob) == [0, 61]


def test_a_garbled_job_is_reported_as_failed_if_it_has_a_name() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    assert scene.happens(w.Garbled(STRANGER, "job-1", "x")) == []
    scene.happens(w.Garbled(ALPHA, "job-1", "job.command: is missing"))
    taken = scene.one(w.Take)
    assert (taken.command, taken.refusal) == (None, "job.command: is missing")


def test_a_garbled_job_without_a_name_is_logged_and_another_one_asked_for() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    scene.happens(w.Garbled(ALPHA, "", "job.id: must be letters"))
    assert "job.id: must be letters" in scene.one(w.Note).message
    scene.until(62)
    assert scene.times(job.WantJob) == [0, 61]


def test_a_request_that_did_not_go_out_goes_out_when_there_is_a_connection() -> None:
    scene = Scene()
    scene.ready()
    scene.happens(w.Unsent(scene.last.id))
    scene.until(300)
    assert scene.worker.next_due is None
    scene.happens(w.Online())
    assert scene.times(job.WantJob) == [0, 300]


def test_getjob_that_did_not_go_out_means_asking_again() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    scene.happens(w.Unsent(scene.last.id))
    scene.until(20)
    scene.happens(w.Online())
    scene.until(62)
    assert scene.times(job.WantJob) == [0, 61]


def test_without_room_nothing_is_asked_for() -> None:
    scene = Scene()
    scene.happens(w.Online())
    scene.ready()
    scene.happens(w.Room(free=False))
    scene.until(1000)
    assert scene.times(job.WantJob) == [0]
    assert scene.hears(ALPHA, job.HaveJob()) == []


def test_a_job_that_was_asked_for_before_the_room_was_gone_is_taken() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    scene.happens(w.Room(free=False))
    scene.hears(ALPHA, run_job())
    assert scene.all(w.Take)
