"""The manager's component over real services, with a stream that a test writes by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import pytest

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.xmpp import END, FRAME, Assembler, add_piece, read_end
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from job_manager_adapter.store.sqlite import SqliteStore
from job_manager_adapter.transports.xmpp import component as module
from job_manager_adapter.transports.xmpp import talk as talks
from job_manager_adapter.views import DrainRequest
from tests.harness import programs
from tests.unit.job_manager_adapter.services.world import OPERATOR, World
from tests.unit.job_manager_adapter.transports.xmpp.talking import (
    CLIENT,
    DOMAIN,
    NAME,
    Setting,
    XmppPilot,
)


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Setting]:
    store = SqliteStore(root / "manager.db")
    await store.open()
    world = await World(store).start()
    setting = Setting(world)
    task = asyncio.create_task(setting.component.run())
    try:
        yield setting
    finally:
        task.cancel()
        await asyncio.wait([task])
        await world.services.close()
        await store.close()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is tidied up."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.02)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with running(tmp_path) as made:
        yield made


def frame(iq: Element) -> ManagerFrame:
    text = iq.findtext(FRAME)
    assert text, iq.attrib
    return ManagerFrame.model_validate_json(text)


def why(iq: Element) -> ErrorCode:
    end = iq.find(f".//{END}")
    assert end is not None, iq.attrib
    return read_end(end)[0]


async def attached(setting: Setting) -> tuple[XmppPilot, int]:
    pilot = await setting.pilot()
    pilot.attach()
    return pilot, frame(await setting.next()).session


async def test_the_answer_to_an_attach_carries_the_frame(setting: Setting) -> None:
    pilot = await setting.pilot()
    pilot.attach("first")
    answer = await setting.next()
    assert dict(answer.attrib) == {"type": "result", "from": NAME, "to": pilot.jid, "id": "first"}
    assert answer[0].get("attach") == "first"
    assert setting.counted == ["xmpp"]


async def test_an_offer_is_pushed(setting: Setting) -> None:
    pilot, _ = await attached(setting)
    reply = await setting.world.submit()
    offered = await setting.next()
    assert (offered.get("type"), offered.get("to")) == ("set", pilot.jid)
    assert [offer.job for offer in frame(offered).offers] == list(reply.jobs)


async def test_a_frame_in_pieces_is_heard_once_and_each_piece_answered(setting: Setting) -> None:
    pilot, session = await attached(setting)
    whole = PilotFrame(session=session, sequence=1, wants=pilot.inner.wants).model_dump()
    whole["of_the_future"] = "x" * 30_000
    pilot.say("7", json.dumps(whole))
    answers = [await setting.next() for _ in range(2)]
    assert [each.get("id") for each in answers] == ["7.0", "7.1"]
    await asyncio.sleep(0)
    assert setting.counted == ["xmpp"] * 2


async def test_half_a_frame_of_a_broken_connection_is_not_put_before_the_next_one(
    setting: Setting,
) -> None:
    pilot = await setting.pilot()
    setting.bring(add_piece(pilot.iq("set", "4f1c-1"), '{"version":1,', more=True))
    assert (await setting.next()).get("id") == "4f1c-1"
    pilot.attach("8a03-1")
    assert frame(await setting.next()).session


async def test_an_iq_is_answered_even_if_there_is_nothing_to_say(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot, session = await attached(setting)
    monkeypatch.setattr(talks, "EMPTY_SECONDS", 0.0)
    pilot.go_on("2", session)
    answer = await setting.next()
    assert (answer.get("type"), answer.get("id"), len(answer)) == ("result", "2", 0)


async def test_who_says_more_than_is_said_to_it_is_answered_all_the_same(setting: Setting) -> None:
    pilot, session = await attached(setting)
    for number in range(100):
        pilot.go_on(f"c-{number}", session)
    count = 100 - talks.MOST_ASKED
    answers = [(await setting.next()).attrib for _ in range(count)]
    assert [(a["type"], a["id"]) for a in answers] == [("result", f"c-{n}") for n in range(count)]


@pytest.mark.parametrize("text", ["", "{", '{"wants":{}}', "[" * 11_000, '{"version":9}'])
async def test_rubbish_is_refused_and_others_go_on(setting: Setting, text: str) -> None:
    pilot, _ = await attached(setting)
    setting.bring(add_piece(pilot.iq("set", "bad"), text, False))
    refusal = await setting.next()
    assert (refusal.get("type"), refusal.get("id")) == ("error", "bad")
    assert why(refusal) in (ErrorCode.INVALID_REQUEST, ErrorCode.PROTOCOL_VERSION)
    other, _ = await attached(setting)
    assert other.jid != pilot.jid


async def test_an_iq_without_a_frame_is_refused(setting: Setting) -> None:
    pilot = await setting.pilot()
    iq = pilot.iq("set", "1")
    SubElement(iq, "{urn:x}y")
    setting.bring(iq)
    assert why(await setting.next()) is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "sender",
    [
        "",
        DOMAIN,
        f"admin@{DOMAIN}/pilot",
        f"{make_id('p', 0, 1)}@{DOMAIN}/other",
        f"{make_id('p', 0, 1)}@elsewhere.test/pilot",
        f"{make_id('p', 0, 1)}@{DOMAIN}/pilot'/><iq",
    ],
)
async def test_who_is_no_pilot_is_not_heard(setting: Setting, sender: str) -> None:
    stranger = Element(CLIENT + "iq", {"type": "set", "id": "1", "from": sender, "to": NAME})
    setting.bring(add_piece(stranger, "{}", False))
    pilot = await setting.pilot()
    pilot.attach("after")
    assert (await setting.next()).get("id") == "after"


async def test_a_pilot_that_never_enrolled_is_refused(setting: Setting) -> None:
    pilot = await setting.pilot()
    pilot.jid = f"{make_id('p', 0, 7)}@{DOMAIN}/pilot"
    pilot.attach()
    assert why(await setting.next()) is ErrorCode.UNAUTHENTICATED


async def test_a_retired_pilot_is_told(setting: Setting) -> None:
    pilot, _ = await attached(setting)
    await setting.world.services.pilots.retire(OPERATOR, pilot.inner.id)
    while (said := await setting.next()).find(FRAME) is not None:
        pass
    assert why(said) is ErrorCode.PILOT_RETIRED


async def test_a_newer_attach_takes_over_without_ending_the_stream(setting: Setting) -> None:
    pilot, first = await attached(setting)
    pilot.attach("again")
    answer = await setting.next()
    assert answer.get("id") == "again"
    assert frame(answer).session > first
    await setting.world.submit()
    assert frame(await setting.next()).offers


async def test_an_attach_elsewhere_ends_this_one(setting: Setting) -> None:
    pilot, _ = await attached(setting)
    await pilot.inner.attach()
    assert why(await setting.next()) is ErrorCode.SESSION_SUPERSEDED


async def test_a_session_of_before_a_restart_is_unknown(setting: Setting) -> None:
    pilot, session = await attached(setting)
    setting.stream.coming.put_nowait(XmppError(XmppTrouble.UNREACHABLE, "the server restarts"))
    pilot.go_on("2", session)
    refusal = await setting.next()
    assert (refusal.get("id"), why(refusal)) == ("2", ErrorCode.UNAVAILABLE)
    assert setting.stream.opened == 2
    pilot.attach("3")
    assert (await setting.next()).get("id") == "3"


async def test_a_bounced_push_ends_the_session(setting: Setting) -> None:
    pilot, session = await attached(setting)
    await setting.world.submit()
    pilot.answer(await setting.next(), "error")
    pilot.go_on("2", session)
    assert why(await setting.next()) is ErrorCode.UNAVAILABLE


async def test_what_a_broken_stream_left_unanswered_does_not_hold_up_the_next(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "MOST_PUSHED", 1)
    pilot, _ = await attached(setting)
    await setting.world.submit()
    assert (await setting.next()).get("type") == "set"
    pilot.attach("2")
    assert (await setting.next()).get("id") == "2"
    await setting.world.services.pilots.drain(OPERATOR, pilot.inner.id, DrainRequest())
    assert (await setting.next()).get("type") == "set"


async def test_a_frame_of_before_is_not_gone_on_with_after_another_attach(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "MOST_PUSHED", 2)
    pilot, _ = await attached(setting)
    await setting.world.submit(environment={f"LONG{n}": "x" * 4000 for n in range(18)})
    first, second = [await setting.next() for _ in range(2)]
    assert first[0].get("more") == second[0].get("more") == "1"
    pilot.answer(first)
    pilot.attach("8a03-1")
    assembler, text = Assembler(), None
    while text is None:
        pilot.answer(iq := await setting.next())
        if iq[0].get("attach") == "8a03-1":
            text = assembler.add(iq[0])
    assert ManagerFrame.model_validate_json(text).offers


async def test_a_pilot_that_does_not_answer_is_not_there(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "PUSH_SECONDS", 0.0)
    pilot, _ = await attached(setting)
    await setting.world.submit()
    await setting.next()

    async def gone() -> bool:
        found = await setting.world.services.pilots.get(OPERATOR, pilot.inner.id)
        return found.carrier == ""

    await programs.eventually(gone, 10, "the pilot has left")


async def test_a_stopping_manager_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as setting:
        await attached(setting)
    assert why(await setting.next()) is ErrorCode.UNAVAILABLE


async def test_a_get_is_not_understood(setting: Setting) -> None:
    pilot = await setting.pilot()
    setting.bring(pilot.iq("get", "<&'\">"))
    refusal = await setting.next()
    assert (refusal.get("type"), refusal.get("id")) == ("error", "<&'\">")


async def test_half_a_frame_is_not_kept(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talks, "HALF_SECONDS", 0.0)
    pilot = await setting.pilot()
    setting.bring(add_piece(pilot.iq("set", "half"), '{"of_before', True))
    assert (await setting.next()).get("id") == "half"
    await asyncio.sleep(0.1)
    pilot.attach()
    assert frame(await setting.next()).session


async def test_what_is_refused_for_haste_does_not_delay_the_rest(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "FRAME_BURST", 1)
    monkeypatch.setattr(talks, "MOST_WAITING", 2)
    pilot, session = await attached(setting)
    for number in range(500):
        pilot.go_on(f"{number}", session)
    busy = 0
    while (await setting.next()).get("type") == "error":
        busy += 1
        if busy == 498:
            break
    assert busy == 498
    pilot.attach("again")
    async with asyncio.timeout(5):  # and not 25 seconds, as for 500 frames
        while (await setting.next()).get("id") != "again":
            pass


async def test_a_late_attach_does_not_outlive_its_stream(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "FRAME_BURST", 1)
    pilot, _ = await attached(setting)
    pilot.attach("too soon")
    setting.stream.coming.put_nowait(XmppError(XmppTrouble.UNREACHABLE, "the server restarts"))
    await attached(setting)  # another one, later than that frame was due
    assert setting.counted == ["xmpp"] * 2
    assert (await setting.world.services.pilots.get(OPERATOR, pilot.inner.id)).carrier == ""


async def test_a_name_that_another_has_taken_is_left_to_it(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    await attached(setting)
    setting.stream.coming.put_nowait(XmppError(XmppTrouble.CONFLICT, "replaced"))
    told = "another manager has this name"
    await programs.eventually(lambda: told in caplog.text, 10, "it says so")
    assert setting.stream.opened == 1
