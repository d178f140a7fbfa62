"""What the original's Heartbeat is answered, to whom, and how often."""

import asyncio
import itertools

import pytest

from copilot_agent.protocol.copilot1.commands import command_of
from copilot_agent.protocol.copilot1.envelope import Envelope, read_envelope
from copilot_agent.protocol.copilot1.monitor_commands import GetStatus, HaveStatus, Ping, Pong
from copilot_agent.protocol.copilot1.parsing import parse_stanza
from copilot_agent.protocol.copilot1.tree import Tree
from copilot_agent.xmpp.heartbeat import ALL, EACH, MAX_ASKERS, Heartbeats, Pace, is_for_plugin
from tests.unit.copilot_agent.protocol.copilot1.recordings import recorded

DRIVER = "pilots-lounge@conference.copilot.test/driver"
PING: Tree = {"command": "Heartbeat:ping"}
DISKS: Tree = {"command": "Heartbeat:getStatus", "component": "diskUsage"}


class Fixture:
    def __init__(self, each: Pace = EACH, all_: Pace = ALL) -> None:
        self.looked: list[str] = []
        ids = (f"id-{number}" for number in itertools.count(1))
        self.heartbeats = Heartbeats(lambda: next(ids), self._look, each=each, all_=all_)

    def _look(self, component: str) -> str:
        self.looked.append(component)
        return f"{component}={len(self.looked)}####"

    def ask(
        self, info: Tree, now: float = 0.0, asker: str = DRIVER, noack: bool = False
    ) -> list[Envelope] | None:
        asked = Envelope(
            sender=asker, recipient="jm@copilot.test/alpha", id="q", noack=noack, info=info
        )
        return self.heartbeats.replies(asked, now)


def ping(fixture: Fixture, now: float, asker: str = DRIVER) -> int:
    """How many messages a ping is answered with."""
    replies = fixture.ask(PING, now, asker, noack=True)
    assert replies is not None
    return len(replies)


def asked_and_answered() -> list[tuple[Envelope, list[Envelope]]]:
    """Each recorded request, with all that the recorded job manager said until the next one."""
    found: list[tuple[Envelope, list[Envelope]]] = []
    for envelope in (read_envelope(parse_stanza(data)) for data in recorded()):
        asks = envelope.info is not None and isinstance(command_of(envelope.info), Ping | GetStatus)
        if asks and envelope.recipient == "jm@copilot.test/alpha":
            found.append((envelope, []))
        elif found and envelope.recipient == found[-1][0].sender:
            found[-1][1].append(envelope)
    return found


def test_answers_are_those_that_were_recorded() -> None:
    exchanges = asked_and_answered()
    assert len({ask.id for ask, _ in exchanges}) == 6
    for number, (ask, recorded_answers) in enumerate(exchanges):
        replies = Fixture().heartbeats.replies(ask, float(number))
        assert replies is not None
        assert [shape(one) for one in replies] == [shape(one) for one in recorded_answers]


def shape(envelope: Envelope) -> tuple[object, ...]:
    """All of it but ids, the address that servers rewrite, and what the computer was like."""
    command = command_of(envelope.info) if envelope.info else None
    about = command.component if isinstance(command, HaveStatus) else ""
    return (envelope.recipient, envelope.ack, envelope.noack, envelope.type, type(command), about)


def test_a_ping_is_answered_with_a_pong_alone() -> None:
    (pong,) = Fixture().ask(PING, noack=True) or []
    assert pong.info is not None and isinstance(command_of(pong.info), Pong)
    assert (pong.recipient, pong.noack, pong.type) == (DRIVER, True, "")


def test_the_first_letter_may_be_a_capital_as_in_the_original() -> None:
    _, answer = Fixture().ask({**DISKS, "component": "SystemLoad"}) or []
    assert answer.info == {
        "command": "haveStatus",
        "component": "systemLoad",
        "status": "systemLoad=1####",
    }


@pytest.mark.parametrize(
    "info",
    [
        {"command": "Heartbeat:getStatus", "component": "secrets"},
        {"command": "Heartbeat:getStatus"},
        {"command": "Heartbeat:reboot"},
        {"command": "Teapot:ping"},
        {"command": "Heartbeat:getStatus", "component": "x\n" * 400},
    ],
)
def test_what_is_not_known_is_acknowledged_and_no_more(info: Tree) -> None:
    (ack,) = Fixture().ask(info) or []
    assert (ack.ack, ack.recipient, ack.info) == ("q", DRIVER, None)


def test_other_commands_are_left_to_others() -> None:
    fixture = Fixture()
    assert fixture.ask({"command": "want_getJob"}) is None
    assert fixture.heartbeats.replies(Envelope(sender=DRIVER, ack="1"), 0) is None
    assert not is_for_plugin("pong") and is_for_plugin("Heartbeat:ping")


def test_without_an_id_nothing_is_said() -> None:
    bare = Envelope(sender=DRIVER, info={"command": "Heartbeat:ping"})
    assert Fixture().heartbeats.replies(bare, 0) == []


def test_the_computer_is_looked_at_once_for_many() -> None:
    fixture = Fixture()
    for number in range(5):
        fixture.ask(DISKS, 0.3 * number, f"room/{number}")
    assert fixture.looked == ["diskUsage"]
    fixture.ask(DISKS, 2.5)
    assert fixture.looked == ["diskUsage", "diskUsage"]


def test_one_who_asks_too_much_is_no_longer_heard_and_the_others_are() -> None:
    fixture = Fixture(each=Pace(3, 0.5))
    assert [ping(fixture, 0.0) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert ping(fixture, 0.0, "room/other") == 1
    assert [ping(fixture, 2.0), ping(fixture, 2.0)] == [1, 0]


def test_many_who_ask_have_a_bound_together() -> None:
    fixture = Fixture(all_=Pace(10, 1))
    answered = sum(ping(fixture, 0.0, f"room/{number}") for number in range(10 * MAX_ASKERS))
    assert answered == 10
    assert ping(fixture, 1.0, "room/late") == 1


async def test_before_another_handler_it_takes_only_its_own() -> None:
    sent: asyncio.Queue[Envelope] = asyncio.Queue()
    others: asyncio.Queue[Envelope] = asyncio.Queue()
    hear = Fixture().heartbeats.before(others.put, sent.put, lambda: 0.0)
    want = Envelope(sender=DRIVER, id="1", info={"command": "want_getJob"})
    for envelope in (want, Envelope(sender=DRIVER, id="2", noack=True, info=PING)):
        await hear(envelope)
    assert (others.get_nowait(), others.empty()) == (want, True)
    assert (sent.get_nowait().info, sent.empty()) == ({"command": "pong"}, True)


def test_a_computer_that_does_not_say_how_it_is_ends_nothing() -> None:
    def broken(_: str) -> str:
        raise OSError("a file system that does not answer")

    heartbeats = Heartbeats(lambda: "id", broken)
    asked = Envelope(sender=DRIVER, recipient="jm@copilot.test/alpha", id="q", info=DISKS)
    replies = heartbeats.replies(asked, 0.0)
    assert replies is not None
    assert [reply.ack for reply in replies] == ["q"]
