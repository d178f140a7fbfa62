"""Where a job's outputs go, and how its manager learns that it is done."""

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
    store,
)

DAY = 86_400


def test_outputs_go_where_the_first_manager_says_and_that_one_is_told() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.PlaceWanted(key, validate_exit_status=1280))
    assert (scene.last.to, type(scene.last.command)) == (MANAGERS, job.WantOutputDir)
    scene.hears(BETA, job.HaveOutputDir())
    scene.hears(ALPHA, job.HaveOutputDir())
    assert (scene.last.to, type(scene.last.command)) == (BETA, job.GetOutputDir)
    scene.hears(BETA, store())
    assert scene.one(w.Place).url == "out.test:9094"
    scene.happens(w.Ended(key, 768, 1.5))
    done = scene.last.command
    assert scene.last.to == BETA
    assert isinstance(done, job.JobDone)
    assert (done.job_id, done.state, done.exit_status) == ("job-1", "ready", 768)
    assert done.validate_exit_status == 1280
    assert done.job_data == "startedAt=5####wallTime=1.50####"


def test_what_the_manager_wants_carried_along_is_carried_along() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.PlaceWanted(key))
    assert scene.last.command.model_dump()["job_data"] == "startedAt=5####"
    scene.hears(ALPHA, job.HaveOutputDir())
    assert scene.last.command.model_dump()["job_data"] == "startedAt=5####"
    scene.hears(ALPHA, store(job_data="other form, 100%"))
    scene.happens(w.Ended(key, 0, 1.5))
    assert scene.last.command.model_dump()["job_data"] == "other form, 100%"


def test_data_that_leave_no_room_for_the_time_are_not_touched() -> None:
    scene = Scene()
    scene.ready()
    scene.hears(ALPHA, job.HaveJob())
    data = f"a={'x' * 32_700}####"
    scene.hears(ALPHA, run_job(job_data=data))
    key = scene.one(w.Take).assignment.key
    scene.finds_a_place(key)
    scene.happens(w.Ended(key, 0, 1.5))
    assert scene.last.command.model_dump()["job_data"] == data


def test_a_place_is_asked_for_again_as_the_originals_do() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.PlaceWanted(key))
    scene.until(400)
    assert scene.times(job.WantOutputDir) == [0, 60, 180]
    scene.hears(ALPHA, job.HaveOutputDir())
    scene.until(411)
    assert scene.times(job.WantOutputDir) == [0, 60, 180, 410]


@pytest.mark.parametrize(
    ("sender", "name"), [(STRANGER, "job-1"), (BETA, "job-1"), (ALPHA, "job-2")]
)
def test_a_place_for_another_job_or_from_another_one_is_none(sender: str, name: str) -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.PlaceWanted(key))
    assert scene.hears(STRANGER, job.HaveOutputDir()) == []
    scene.hears(ALPHA, job.HaveOutputDir())
    assert scene.hears(sender, store(name)) == []


def test_jobdone_is_repeated_with_the_same_id_until_it_is_acknowledged() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.finds_a_place(key)
    scene.happens(w.Ended(key, 0, 1.0))
    message = scene.last.id
    scene.until(200)
    assert scene.times(job.JobDone) == [0, 60, 180]
    assert {each.id for _, each in scene.said if isinstance(each.command, job.JobDone)} == {message}
    assert scene.happens(w.Acked(STRANGER, message)) == []
    scene.happens(w.Acked(ALPHA, message))
    assert scene.one(w.Told) == w.Told(key)
    scene.until(DAY)
    assert len(scene.times(job.JobDone)) == 3


def test_the_next_job_does_not_wait_for_an_acknowledgement() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.until(100)
    scene.finds_a_place(key)
    scene.happens(w.Ended(key, 0, 1.0), w.Room(free=True))
    assert scene.times(job.WantJob) == [0, 100]


def test_an_acknowledgement_that_never_comes_is_given_up_after_a_day() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.finds_a_place(key)
    scene.happens(w.Ended(key, 0, 1.0))
    scene.until(DAY)
    assert "never acknowledged" in scene.one(w.Told).given_up
    assert len(scene.times(job.JobDone)) == 50
    count = len(scene.said)
    scene.until(3 * DAY)
    assert len(scene.said) == count


def test_a_manager_that_was_started_again_elsewhere_is_told_by_its_bare_address() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.finds_a_place(key)
    scene.happens(w.Ended(key, 0, 1.0))
    scene.happens(w.Bounced(scene.last.id))
    scene.until(60)
    assert (scene.last.to, type(scene.last.command)) == (MANAGERS, job.JobDone)
    scene.happens(w.Acked(BETA, scene.last.id))
    assert scene.one(w.Told).given_up == ""


def test_a_job_that_ended_without_outputs_finds_a_place_for_the_reason_first() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.Ended(key, 32_000, 0.0))
    assert isinstance(scene.last.command, job.WantOutputDir)
    scene.hears(ALPHA, job.HaveOutputDir())
    scene.hears(ALPHA, store())
    assert scene.one(w.Place).assignment.exit_status == 32_000
    assert not scene.times(job.JobDone)
    scene.happens(w.Explained(key))
    assert isinstance(scene.last.command, job.JobDone)


def test_a_report_during_a_second_search_for_a_place_goes_to_the_first_one() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.finds_a_place(key)
    scene.happens(w.PlaceWanted(key))  # the outputs could not be put there
    scene.happens(w.Ended(key, 32_000, 0.0))
    assert isinstance(scene.last.command, job.JobDone)
    scene.until(59)
    assert len(scene.times(job.WantOutputDir)) == 2


def test_two_jobs_ask_for_their_places_one_after_the_other() -> None:
    scene = Scene()
    first = scene.takes_a_job()
    scene.happens(w.Ended(first, 32_000, 0.0), w.Room(free=True))
    scene.until(61)
    scene.hears(ALPHA, job.HaveJob())
    scene.hears(ALPHA, run_job("job-2"))
    second = scene.one(w.Take).assignment.key
    scene.happens(w.PlaceWanted(second))
    scene.hears(ALPHA, job.HaveOutputDir())
    assert scene.last.command.model_dump()["job_id"] == "job-1"
    scene.hears(ALPHA, store("job-1"))
    assert isinstance(scene.last.command, job.WantOutputDir)
    scene.hears(ALPHA, job.HaveOutputDir())
    scene.hears(ALPHA, store("job-2"))
    assert scene.one(w.Place).assignment.key == second


def test_a_storage_that_answers_with_an_error_is_told_that_the_job_failed() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.happens(w.PlaceWanted(key))
    scene.hears(ALPHA, job.HaveOutputDir())
    scene.hears(ALPHA, job.ErrorCommand(error_string="disk full"))
    assert scene.one(w.NoPlace) == w.NoPlace(key, "disk full")
    scene.happens(w.Ended(key, 32_000, 0.0))
    assert (scene.last.to, type(scene.last.command)) == (ALPHA, job.JobDone)


def test_an_error_of_a_running_job_s_manager_ends_the_job() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    scene.hears(BETA, job.ErrorCommand(error_string="x"))
    assert not scene.all(w.Cancel)
    scene.hears(ALPHA, job.ErrorCommand(error_string="x"))
    assert scene.one(w.Cancel).key == key


def test_what_an_earlier_agent_left_is_told_again_with_its_id() -> None:
    left = w.Assignment(
        key=f"j-{7:020d}",
        job="job-7",
        giver=ALPHA,
        storage=ALPHA,
        exit_status=0,
        done_id="old-id",
    )
    scene = Scene([left])
    scene.happens(w.Online())
    assert (scene.last.id, scene.last.to) == ("old-id", ALPHA)
    scene.happens(w.Acked(ALPHA, "old-id"))
    assert scene.one(w.Told).key == left.key
    assert scene.happens(w.Forgotten(left.key)) == [w.Drop(left.key)]
    assert scene.worker.assignments == ()


def test_messages_that_did_not_go_out_go_out_when_there_is_a_connection() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    for event, kind in (
        (w.PlaceWanted(key), job.WantOutputDir),
        (w.Heard(ALPHA, job.HaveOutputDir()), job.GetOutputDir),
    ):
        scene.happens(event)
        assert isinstance(scene.last.command, kind)
        scene.happens(w.Unsent(scene.last.id))
        assert not scene.all(w.Say)
        scene.now += 5
        scene.happens(w.Online())
        assert isinstance(scene.last.command, job.WantOutputDir)
    scene.hears(ALPHA, job.HaveOutputDir())
    scene.hears(ALPHA, store())
    scene.happens(w.Ended(key, 0, 0.0))
    scene.happens(w.Unsent(scene.last.id))
    count = len(scene.times(job.JobDone))
    scene.happens(w.Online())
    assert len(scene.times(job.JobDone)) == count + 1


def test_a_job_is_remembered_until_the_pilot_has_forgotten_it() -> None:
    scene = Scene()
    key = scene.takes_a_job()
    assert scene.happens(w.Forgotten(key)) == []
    assert scene.worker.assignments
