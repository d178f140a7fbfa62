"""Asking components of Co-Pilot 1: whom, and what is made of their answers."""

import itertools

import pytest

from copilot_agent.protocol.copilot1.envelope import Envelope
from job_manager_adapter.client.heartbeat import MAX_ROWS, Asking, Question

ROOM = "lounge@conference.copilot.test"


def asking(question: Question, *targets: str) -> tuple[Asking, list[Envelope]]:
    made = Asking(question, ROOM, targets)
    numbers = itertools.count(1)
    return made, made.questions(100.0, lambda: f"q{next(numbers)}")


def status(text: str, sender: str = f"{ROOM}/alpha", component: str = "diskUsage") -> Envelope:
    info = {"command": "haveStatus", "component": component, "status": text}
    return Envelope(sender=sender, recipient="me@copilot.test/x", id="a", info=dict(info))


def test_everybody_is_asked_in_the_room() -> None:
    made, (question,) = asking(Question.PING)
    assert (question.recipient, question.type, question.noack) == (ROOM, "groupchat", True)
    assert made.needs_room and not made.complete


def test_a_nick_is_asked_in_the_room_and_an_address_without_it() -> None:
    made, (nick,) = asking(Question.DISK, "alpha")
    assert (nick.recipient, nick.type, nick.noack) == (f"{ROOM}/alpha", "", False)
    assert nick.info == {"command": "Heartbeat:getStatus", "component": "diskUsage"}
    assert made.needs_room
    assert not Asking(Question.DISK, ROOM, ["jm@copilot.test/alpha"]).needs_room


def test_an_answer_is_acknowledged_and_counts_once() -> None:
    made, _ = asking(Question.DISK, "alpha")
    answer = status("used=1::::2####path=/dev/a::::/dev/b####")
    for _ in range(2):
        (ack,) = made.hear(answer, 100.25)
        assert (ack.ack, ack.recipient) == ("a", f"{ROOM}/alpha")
    assert made.complete
    assert [(row.who, row.seconds, row.values) for row in made.rows] == [
        ("alpha", 0.25, {"used": "1", "path": "/dev/a"}),
        ("alpha", 0.25, {"used": "2", "path": "/dev/b"}),
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [{}]),
        ("nonsense", [{"status": "nonsense"}]),
        ("a=1::::2####b=3####", [{"a": "1", "b": "3"}, {"a": "2", "b": ""}]),
    ],
)
def test_odd_answers_are_answers(text: str, rows: list[dict[str, str]]) -> None:
    made, _ = asking(Question.DISK)
    made.hear(status(text), 101.0)
    assert [row.values for row in made.rows] == rows


def test_an_endless_answer_is_cut() -> None:
    made, _ = asking(Question.DISK)
    made.hear(status(f"a={'::::'.join('x' * 2 * MAX_ROWS)}####"), 101.0)
    assert len(made.rows) == MAX_ROWS


def test_what_was_not_asked_is_no_answer() -> None:
    made, _ = asking(Question.DISK)
    made.hear(status("1min=1####", component="systemLoad"), 101.0)
    made.hear(Envelope(sender="x@y", id="1", info={"command": "pong"}), 101.0)
    made.hear(Envelope(sender="x@y", id="2", info={"command": "have\nnothing"}), 101.0)
    assert made.rows == []
    made.hear(status("used=1####", component=""), 101.0)
    assert len(made.rows) == 1, "processes come without the component's name"


def test_who_is_not_there_ends_the_waiting() -> None:
    made, (question,) = asking(Question.PING, "ghost")
    made.hear(Envelope(sender=f"{ROOM}/ghost", id=question.id, type="error"), 100.1)
    assert (made.complete, made.absent, made.rows) == (True, [f"{ROOM}/ghost"], [])
