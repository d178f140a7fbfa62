import pytest

from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Outcome
from job_manager_adapter.core.attempts import MAX_UNCHARGED, Standing, end, judge


def standing(**fields: object) -> Standing:
    values: dict[str, object] = {
        "state": JobState.RUNNING,
        "max_attempts": 3,
        "charged": 0,
        "uncharged": 0,
        "pilot": "p-1",
        "open": True,
        "accepted": False,
    }
    return Standing(**{**values, **fields})  # type: ignore[arg-type]


def report(outcome: Outcome, failure_class: FailureClass | None = None) -> Report:
    values = {"job": "j-" + "0" * 20, "attempt": 1, "outcome": outcome}
    return Report.model_validate({**values, "failure_class": failure_class})


def test_success_ends_the_job() -> None:
    judgement = judge(standing(), "p-1", report(Outcome.SUCCEEDED))
    assert judgement.verdict is VerdictKind.ACCEPTED
    assert judgement.ending is not None and judgement.ending.state is JobState.SUCCEEDED


@pytest.mark.parametrize("failure_class", FailureClass)
def test_only_costly_failures_use_up_attempts(failure_class: FailureClass) -> None:
    last = standing(charged=2)
    judgement = judge(last, "p-1", report(Outcome.FAILED, failure_class))
    assert judgement.ending is not None
    assert judgement.ending.charged == failure_class.costs_attempt
    state = JobState.FAILED if failure_class.costs_attempt else JobState.WAITING
    assert judgement.ending.state is state


def test_a_failure_without_class_is_the_payloads() -> None:
    judgement = judge(standing(), "p-1", report(Outcome.FAILED))
    assert judgement.ending is not None
    assert judgement.ending.failure_class is FailureClass.PAYLOAD


def test_nothing_loops_for_ever() -> None:
    tired = standing(uncharged=MAX_UNCHARGED - 1)
    ending = end(tired, FailureClass.PREEMPTED)
    assert ending is not None and ending.state is JobState.FAILED and not ending.charged


def test_a_closed_attempt_cannot_move_the_job() -> None:
    closed = standing(open=False)
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED):
        judgement = judge(closed, "p-1", report(outcome))
        assert judgement.verdict is VerdictKind.SUPERSEDED and judgement.ending is None
    assert end(closed, FailureClass.LEASE_LOST) is None


def test_a_repetition_is_accepted_without_effect() -> None:
    judgement = judge(standing(open=False, accepted=True), "p-1", report(Outcome.SUCCEEDED))
    assert judgement.verdict is VerdictKind.ACCEPTED and judgement.ending is None


def test_strangers_are_rejected() -> None:
    assert judge(standing(), "p-2", report(Outcome.SUCCEEDED)).verdict is VerdictKind.REJECTED
    assert judge(None, "p-1", report(Outcome.SUCCEEDED)).verdict is VerdictKind.REJECTED
