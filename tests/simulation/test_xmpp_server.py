"""The simulated XMPP server does what real ones do where streams break."""

from collections.abc import Coroutine
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from tests.simulation.loop import Clock, Machine, Universe
from tests.simulation.wire import DOWN, UP, Line
from tests.simulation.xmpp_manager import ComponentStream
from tests.simulation.xmpp_pilot import ClientStream
from tests.simulation.xmpp_server import ADDRESS, CLIENT, KEPT_SECONDS, XmppServer

PILOT = "p-01hf7yaycaqen3dypcrs"
JID = f"{PILOT}@{ADDRESS.domain}/pilot"
UNREACHABLE, CONFLICT = XmppTrouble.UNREACHABLE, XmppTrouble.CONFLICT


class End:
    """A process with a stream; `came` are types and ids, and why it ended."""

    def __init__(self, machine: Machine, stream: ClientStream | ComponentStream) -> None:
        self.machine = machine
        self.stream = stream
        self.came: list[tuple[str, str] | XmppTrouble] = []

    def opens(self) -> None:
        self.machine.spawn(self._live())

    async def _live(self) -> None:
        try:
            await self.stream.open()
            async for stanza in self.stream.stanzas():
                self.came.append((stanza.get("type", ""), stanza.get("id", "")))
        except XmppError as error:
            self.came.append(error.trouble)

    def does(self, work: Coroutine[Any, Any, None]) -> None:
        self.machine.spawn(work)


class Scene:
    def __init__(self) -> None:
        self.universe = Universe(7)
        self.line = Line(self.universe, "host")
        self.server = XmppServer(self.universe, Clock(self.universe))
        manager = self._machine("manager")
        self.manager = End(manager, ComponentStream(manager, self.server))
        self.pilot = self.another_pilot()

    def another_pilot(self) -> End:
        machine = self._machine("agent")
        stream = ClientStream(machine, self.line, self.server, PILOT, _nobody, _nobody)
        stream.use_password(f"{PILOT}.9e12")
        return End(machine, stream)

    def _machine(self, name: str) -> Machine:
        return Machine(self.universe, name, Clock(self.universe))

    def passes(self, seconds: float) -> None:
        self.universe.run(lambda: False, self.universe.now + seconds)

    def begins(self) -> None:
        for end in (self.manager, self.pilot):
            end.opens()
            self.passes(1.0)

    def pilot_says(self, *numbers: str) -> None:
        for number in numbers:
            attributes = {"type": "set", "to": ADDRESS.component, "id": number}
            self.pilot.does(self.pilot.stream.send(Element(CLIENT + "iq", attributes)))

    def manager_says(self, *numbers: str) -> None:
        for number in numbers:
            attributes = {"type": "set", "from": ADDRESS.component, "to": JID, "id": number}
            self.manager.does(self.manager.stream.send(Element(CLIENT + "iq", attributes)))


def _nobody(text: str) -> None:
    """Listens to frames."""


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.begins()
    return made


def sets(*numbers: str) -> list[tuple[str, str]]:
    return [("set", number) for number in numbers]


def test_what_a_broken_stream_did_not_bring_comes_once_and_in_order_when_it_is_resumed(
    scene: Scene,
) -> None:
    scene.pilot_says("1")
    scene.manager_says("a")
    scene.passes(1.0)
    scene.line.cut()
    scene.pilot_says("2", "3")
    scene.manager_says("b", "c")
    scene.passes(10.0)
    assert scene.pilot.came == [*sets("a"), UNREACHABLE]
    scene.pilot.opens()
    scene.passes(1.0)
    assert scene.pilot.came == [*sets("a"), UNREACHABLE, *sets("b", "c")]
    assert scene.manager.came == sets("1", "2", "3")


def test_a_newer_login_ends_the_older_and_what_that_has_not_got_goes_back(scene: Scene) -> None:
    scene.line.partition((DOWN,))
    scene.manager_says("a")
    scene.passes(1.0)
    another = scene.another_pilot()
    another.opens()
    scene.passes(1.0)
    assert scene.manager.came == [("error", "a")]
    scene.line.heal()
    scene.passes(1.0)
    assert scene.pilot.came == [*sets("a"), CONFLICT], "and that it comes does not hurt"
    assert another.came == []


def test_who_does_not_come_back_in_time_is_not_waited_for(scene: Scene) -> None:
    scene.line.cut()
    scene.passes(10.0)
    scene.manager_says("a")
    scene.passes(KEPT_SECONDS)
    assert scene.manager.came == [("error", "a")]
    scene.manager_says("b")
    scene.passes(1.0)
    assert scene.manager.came == [("error", "a"), ("error", "b")]


def test_without_a_manager_what_is_for_it_goes_back(scene: Scene) -> None:
    assert isinstance(scene.manager.stream, ComponentStream)
    scene.manager.stream.died()
    scene.passes(1.0)
    scene.pilot_says("1")
    scene.passes(1.0)
    assert scene.pilot.came == [("error", "1")]


def test_after_a_crash_nothing_is_resumed(scene: Scene) -> None:
    scene.line.partition((UP,))
    scene.pilot_says("1")
    scene.server.crash()
    scene.passes(1.0)
    assert scene.manager.came == scene.pilot.came == [UNREACHABLE]
    scene.server.start()
    scene.line.heal()
    scene.manager.opens()
    scene.pilot.opens()
    scene.passes(1.0)
    scene.pilot_says("2")
    scene.passes(1.0)
    assert scene.manager.came == [UNREACHABLE, *sets("2")]


def test_an_old_token_is_refused(scene: Scene) -> None:
    another = scene.another_pilot()
    assert isinstance(another.stream, ClientStream)
    another.stream.use_password(f"{PILOT}.0")
    another.opens()
    scene.passes(1.0)
    assert another.came == [XmppTrouble.LOGIN]
