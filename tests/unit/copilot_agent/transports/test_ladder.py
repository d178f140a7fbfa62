"""Which of several carriers is used when."""

from collections.abc import AsyncIterator

import pytest

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame, Wants
from copilot_agent.transports.base import NotOfferedError, TransportError
from copilot_agent.transports.ladder import Ladder, Rung
from tests.contract.test_transports import answer

FRAME = PilotFrame(wants=Wants(cores=1, memory_mib=1, disk_mib=1))


class Carrier:
    """Does as it is told."""

    def __init__(self) -> None:
        self.refusal: TransportError | None = None
        self.ending: TransportError | None = None
        self.says = True
        self.connects = self.closes = 0

    async def connect(self, token: str) -> None:
        self.connects += 1
        if self.refusal is not None:
            raise self.refusal

    async def send(self, frame: PilotFrame) -> None: ...

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        if self.says:
            yield answer(1)
        if self.ending is not None:
            raise self.ending

    def use_token(self, token: str) -> None: ...

    async def close(self) -> None:
        self.closes += 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Setting:
    def __init__(self) -> None:
        self.best, self.good, self.last = Carrier(), Carrier(), Carrier()
        self.clock = Clock()
        rungs = zip(("xmpp", "websocket", "poll"), (self.best, self.good, self.last), strict=True)
        self.ladder = Ladder([Rung(name, carrier) for name, carrier in rungs], self.clock)

    async def talk(self) -> str:
        """Connects and hears what comes; the carrier's name, or the trouble."""
        try:
            await self.ladder.connect("token")
            async for _ in self.ladder.frames():
                pass
        except TransportError as error:
            await self.ladder.close()
            return error.trouble.value
        return self.ladder.carrier


@pytest.fixture
def setting() -> Setting:
    return Setting()


def unreachable() -> TransportError:
    return TransportError(TransportTrouble.UNREACHABLE, "nobody is there")


async def test_the_first_one_is_used(setting: Setting) -> None:
    assert await setting.talk() == "xmpp"
    assert setting.good.connects == 0


async def test_one_that_is_not_offered_is_passed_over_at_once(setting: Setting) -> None:
    setting.best.refusal = NotOfferedError("not here")
    assert await setting.talk() == "websocket"
    assert setting.best.connects == 1


async def test_an_unreachable_one_gets_a_second_chance(setting: Setting) -> None:
    setting.best.refusal = unreachable()
    assert [await setting.talk() for _ in range(2)] == ["unreachable", "websocket"]


async def test_a_connection_on_which_nothing_is_heard_is_none(setting: Setting) -> None:
    setting.best.says, setting.best.ending = False, unreachable()
    heard = [await setting.talk() for _ in range(3)]
    assert heard == ["unreachable", "unreachable", "websocket"]


@pytest.mark.parametrize("trouble", [TransportTrouble.TOKEN, TransportTrouble.RETIRED])
async def test_the_managers_own_word_is_no_reason_to_leave(
    setting: Setting, trouble: TransportTrouble
) -> None:
    setting.best.says, setting.best.ending = False, TransportError(trouble, "the manager's word")
    assert [await setting.talk() for _ in range(5)] == [trouble.value] * 5
    setting.best.says, setting.best.ending = True, None
    assert await setting.talk() == "xmpp"


async def test_a_reachable_one_may_end_as_often_as_it_likes(setting: Setting) -> None:
    setting.best.ending = unreachable()
    assert [await setting.talk() for _ in range(5)] == ["unreachable"] * 5
    assert setting.good.connects == 0


async def test_the_better_one_is_looked_for_later(setting: Setting) -> None:
    setting.best.refusal = unreachable()
    assert [await setting.talk() for _ in range(3)] == ["unreachable", "websocket", "websocket"]
    setting.best.refusal = None
    setting.clock.now = 601.0
    setting.good.says = True
    await setting.ladder.close()
    assert await setting.talk() == "xmpp"


async def test_a_long_talk_is_left_for_a_better_carrier(setting: Setting) -> None:
    setting.best.refusal = NotOfferedError("not yet")
    await setting.ladder.connect("token")
    assert setting.ladder.carrier == "websocket"
    setting.best.refusal = None
    setting.clock.now = 601.0
    with pytest.raises(TransportError, match="pass again: xmpp"):
        await anext(setting.ladder.frames())
    assert setting.good.closes == 1
    assert await setting.talk() == "xmpp"


async def test_where_nothing_works_all_are_tried_again(setting: Setting) -> None:
    for carrier in (setting.best, setting.good, setting.last):
        carrier.refusal = unreachable()
    assert [await setting.talk() for _ in range(6)] == ["unreachable"] * 6
    assert min(each.connects for each in (setting.best, setting.good, setting.last)) >= 2
    setting.best.refusal = None
    assert "xmpp" in [await setting.talk() for _ in range(6)]
