from typing import Any

import pytest

from copilot_agent.protocol.copilot1.job_commands import JobDone
from copilot_agent.protocol.job import FailureClass, JobSpec, Outcome, Output
from job_manager_adapter.core.copilot1.reporting import TakenIn, report_of

KEY = ("j-" + "0" * 20, 1)
SPEC = JobSpec.model_validate(
    {
        "experiment": "demo",
        "command": ["x"],
        "outputs": [{"name": "mass.txt"}, {"name": "more.txt", "optional": True}],
    }
)
MASS = Output(name="mass.txt", sha256="0" * 64, size=1)


def done(status: int = 0, **fields: Any) -> JobDone:
    return JobDone(job_id="j", exit_status=status, **fields)


@pytest.mark.parametrize(
    ("said", "taken", "expected", "words"),
    [
        (done(), TakenIn([MASS]), None, ""),
        (done(validate_exit_status=0), TakenIn([MASS]), None, ""),
        (done(768), TakenIn([MASS]), FailureClass.PAYLOAD, "exit code 3"),
        (done(9), TakenIn([MASS]), FailureClass.PAYLOAD, "signal 9"),
        (done(35072), TakenIn([MASS]), FailureClass.PAYLOAD, "signal 9"),
        (done(validate_exit_status=1280), TakenIn([MASS]), FailureClass.PAYLOAD, "exit code 5"),
        (done(), TakenIn(), FailureClass.PAYLOAD, "missing: mass.txt"),
        (done(), TakenIn([], "no archive"), FailureClass.STAGE_OUT, "no archive"),
        (
            done(96 << 8),
            TakenIn([], "no cards.dat", FailureClass.STAGE_IN),
            FailureClass.STAGE_IN,
            "no cards.dat",
        ),
    ],
)
def test_how_it_ended(
    said: JobDone, taken: TakenIn, expected: FailureClass | None, words: str
) -> None:
    report = report_of(KEY, SPEC, said, taken, 60)
    assert report.failure_class is expected
    assert report.outcome is (Outcome.FAILED if expected else Outcome.SUCCEEDED)
    assert words in report.message
    assert report.outputs == tuple(taken.outputs)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ("wallTime=12.50####startedAt=1####", 12.5),
        ("startedAt=1####", 0),
        ("wallTime=1e300####", 60),
        ("wallTime=nan####", 0),
        ("wallTime=-5####", 0),
        ("wallTime=x####", 0),
        ("opaque", 0),
        (None, 0),
    ],
)
def test_claimed_cpu_time_is_bounded_by_the_wall_time(data: str | None, seconds: float) -> None:
    report = report_of(KEY, SPEC, done(job_data=data), TakenIn([MASS]), 60)
    assert (report.usage.cpu_seconds, report.usage.wall_seconds) == (seconds, 60)
