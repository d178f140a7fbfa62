import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from copilot_agent.core.events import TransportTrouble
from copilot_agent.identity import Enroller, PrivateKey, own_launcher, read_secret
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.connections import open_session, wait_seconds
from copilot_agent.transports.enrolment import EnrolmentClient
from tests.unit.copilot_agent.transports.scripted import PILOT, ScriptedManager

SECRET = "s" * 43


class Desk:
    def __init__(self, manager: ScriptedManager, client: EnrolmentClient, state: Path) -> None:
        self.manager, self.client, self.state = manager, client, state
        self.now = 1000.0

    def enroller(self) -> Enroller:
        """As an agent that has just been started makes it."""
        return Enroller(
            self.client,
            own_launcher(PrivateKey(b"L" * 32), SECRET),
            Capabilities(cores=1, memory_mib=1, disk_mib=1),
            self.state,
            clock=lambda: self.now,
        )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with ScriptedManager().running() as manager, open_session() as session:
        yield Desk(manager, EnrolmentClient(session, manager.url), tmp_path)


async def test_it_enrols_once_and_keeps_what_it_got(desk: Desk) -> None:
    enroller = desk.enroller()
    first = await enroller.grant(renew=False)
    assert (first.pilot, await enroller.grant(renew=False)) == (PILOT, first)
    assert len(desk.manager.enrolments) == 1


async def test_an_agent_started_again_is_the_same_pilot(desk: Desk) -> None:
    first = await desk.enroller().grant(renew=False)
    assert await desk.enroller().grant(renew=False) == first
    assert (desk.state / "pilot.key").stat().st_mode & 0o777 == 0o600
    assert (desk.state / "pilot.json").stat().st_mode & 0o777 == 0o600


async def test_a_refusal_says_what_to_do(desk: Desk) -> None:
    desk.manager.refuse_enrolment = ErrorCode.ENROLMENT_REFUSED
    with pytest.raises(TransportError, match="ask for another one") as caught:
        await desk.enroller().grant(renew=False)
    assert caught.value.trouble is TransportTrouble.RETIRED


async def test_a_busy_manager_says_when_to_come_back(desk: Desk) -> None:
    desk.manager.refuse_enrolment = ErrorCode.UNAVAILABLE
    with pytest.raises(TransportError) as caught:
        await desk.enroller().grant(renew=False)
    assert (caught.value.trouble, caught.value.wait_seconds) == (TransportTrouble.UNREACHABLE, 7.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("120", 120.0), ("", 0.0), ("Wed, 21 Oct 2015", 0.0), ("9" * 30, 0.0)]
)
def test_how_long_a_server_asks_to_wait(text: str, seconds: float) -> None:
    assert wait_seconds({"Retry-After": text}) == seconds


async def test_another_boot_is_another_pilot(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.enroller().grant(renew=False)
    monkeypatch.setattr("copilot_agent.identity.boot_id", lambda: "another")
    await desk.enroller().grant(renew=False)
    assert len(desk.manager.enrolments) == 2


async def test_a_token_that_ran_out_is_renewed_with_the_pilots_key(desk: Desk) -> None:
    enroller = desk.enroller()
    first = await enroller.grant(renew=False)
    desk.now += 12 * 3600
    second = await enroller.grant(renew=False)
    assert second.token != first.token
    assert second.valid_until > desk.now
    assert len(desk.manager.enrolments) == 1


async def test_a_manager_that_has_forgotten_the_pilot_gets_a_new_enrolment(desk: Desk) -> None:
    enroller = desk.enroller()
    await enroller.grant(renew=False)
    desk.manager.forget_pilots()
    await enroller.grant(renew=True)
    assert len(desk.manager.enrolments) == 2


async def test_a_used_key_is_replaced(desk: Desk) -> None:
    enroller = desk.enroller()
    desk.manager.refuse_enrolment = ErrorCode.CONFLICT
    with pytest.raises(TransportError) as caught:
        await enroller.grant(renew=False)
    assert caught.value.trouble is TransportTrouble.UNREACHABLE  # so it is tried again
    used = desk.manager.refused_keys[0]
    desk.manager.refuse_enrolment = None
    await enroller.grant(renew=False)
    assert desk.manager.enrolments[0].pilot_key != used
    assert PrivateKey.kept_in(desk.state / "pilot.key").public != used


async def test_a_refusal_is_for_good(desk: Desk) -> None:
    desk.manager.refuse_enrolment = ErrorCode.HOST_BANNED
    with pytest.raises(TransportError) as caught:
        await desk.enroller().grant(renew=False)
    assert caught.value.trouble is TransportTrouble.RETIRED


def test_a_file_that_is_no_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ValueError, match="remove it"):
        PrivateKey.kept_in(tmp_path / "key")


def test_the_secret_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "secret").chmod(0o600)
    assert read_secret(tmp_path / "secret") == SECRET
    monkeypatch.setenv("COPILOT_ENROLMENT", "t" * 43)
    assert read_secret(None) == "t" * 43


@pytest.mark.parametrize("text", ["", "too short", "x" * 44, "ü" * 43])
def test_what_is_no_secret_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text(text)
    with pytest.raises(ValueError, match="enrolment create") as caught:
        read_secret(tmp_path / "secret")
    assert not text or text not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        read_secret(tmp_path / "nowhere")


async def test_no_answer_is_no_refusal() -> None:
    async with asyncio.timeout(10), open_session() as session:
        client = EnrolmentClient(session, "http://127.0.0.1:9")
        with pytest.raises(TransportError) as caught:
            await client.challenge(PILOT)
    assert caught.value.trouble is TransportTrouble.UNREACHABLE
