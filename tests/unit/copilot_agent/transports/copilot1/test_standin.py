"""What the pilot takes for its manager."""

from collections.abc import Iterable
from itertools import count

import pytest

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Held, PilotFrame, Report, VerdictKind, Wants
from copilot_agent.protocol.job import FailureClass, Outcome, Phase
from copilot_agent.transports.copilot1.jobs import Terms, specification
from copilot_agent.transports.copilot1.standin import FAILED, StandIn, exit_status

KEY = f"j-{1:020d}"
ROOM = Wants(cores=1, memory_mib=100, disk_mib=100)
NONE = Wants(cores=0, memory_mib=0, disk_mib=0)
SPEC = specification("job-1", Terms(Capabilities(cores=1, memory_mib=100, disk_mib=100)))
SUCCEEDED = Report(job=KEY, attempt=1, outcome=Outcome.SUCCEEDED, exit_code=0)


def frame(held: Iterable[str] = (), wants: Wants = ROOM, **rest: object) -> PilotFrame:
    holding = tuple(Held(job=key, attempt=1, phase=Phase.RUNNING) for key in held)
    return PilotFrame(wants=wants, holding=holding, **rest)


@pytest.fixture
def standin() -> StandIn:
    numbers = count()
    made = StandIn(lambda kind: f"{kind}-{next(numbers):020d}")
    made.attach()
    return made


def test_a_job_is_offered_until_it_is_held_and_no_other_one_is_wanted_meanwhile(
    standin: StandIn,
) -> None:
    assert standin.take(frame()) == [w.Room(free=True)]
    standin.offer(KEY, SPEC)
    assert standin.take(frame()) == [w.Room(free=False)]
    assert [offer.job for offer in standin.frame(0.0).offers] == [KEY]
    assert standin.take(frame([KEY])) == [w.Room(free=False)]
    assert standin.frame(0.0).offers == ()


def test_a_report_makes_room_and_its_verdict_is_repeated_until_it_is_known(
    standin: StandIn,
) -> None:
    standin.offer(KEY, SPEC)
    ended, room = standin.take(frame([KEY], reports=(SUCCEEDED,)))
    assert ended == w.Ended(KEY, 0, 0.0)
    assert room == w.Room(free=True)
    standin.close(KEY)
    for _ in range(2):
        (verdict,) = standin.frame(0.0).verdicts
        assert verdict.verdict is VerdictKind.ACCEPTED
        assert standin.take(frame([KEY])) == [w.Room(free=True)]
    assert w.Forgotten(KEY) in standin.take(frame())
    assert standin.frame(0.0).verdicts == ()


@pytest.mark.parametrize(
    "stopping",
    [{"paused": True}, {"draining": True}, {"leaving": True}, {"wants": NONE}],
)
def test_a_pilot_that_stops_wants_nothing(standin: StandIn, stopping: dict[str, object]) -> None:
    assert standin.take(frame(**stopping)) == [w.Room(free=False)]  # type: ignore[arg-type]


def test_a_cancellation_is_repeated_until_it_is_done(standin: StandIn) -> None:
    standin.cancel(KEY, "the manager says no")
    (command,) = standin.frame(0.0).commands
    assert (command.job, command.reason) == (KEY, "the manager says no")
    standin.take(frame([KEY]))
    assert standin.frame(0.0).commands == (command,)
    standin.take(frame(commands_done=(command.id,)))
    assert standin.frame(0.0).commands == ()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"exit_code": 0}, 0),
        ({"exit_code": 3, "failure_class": FailureClass.PAYLOAD}, 768),
        ({"signal": 9, "failure_class": FailureClass.PAYLOAD_LIMIT}, 9),
        ({"exit_code": 0, "failure_class": FailureClass.STAGE_OUT}, FAILED),
        ({"failure_class": FailureClass.STAGE_IN}, FAILED),
    ],
)
def test_only_what_succeeded_has_the_status_of_success(
    fields: dict[str, object], status: int
) -> None:
    outcome = Outcome.FAILED if "failure_class" in fields else Outcome.SUCCEEDED
    report = Report(job=KEY, attempt=1, outcome=outcome, **fields)
    assert exit_status(report) == status
