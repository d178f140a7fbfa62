"""A pilot's whole life over HTTP, on both carriers."""

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from copilot_agent.protocol.frames import Offer, VerdictKind
from copilot_agent.protocol.job import JobSpec, JobState, Output, Phase
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.app import Manager
from job_manager_adapter.client import Client
from job_manager_adapter.client.receipts import verify_receipt
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.settings import Settings
from job_manager_adapter.views import Role
from tests.harness.programs import eventually
from tests.integration.manager.pilot import FakePilot, held, success

OPERATOR = Principal("t-test", Role.OPERATOR)
MASS = b"91.19\n" * 1000


def spec(**fields: Any) -> JobSpec:
    base = {"experiment": "demo", "command": ["/bin/true"], "outputs": [{"name": "mass.txt"}]}
    return JobSpec.model_validate(base | fields)


@pytest.fixture
async def pilot(manager: Manager, http: aiohttp.ClientSession) -> FakePilot:
    [enrolment] = await manager.services.enrolments.create()
    pilot = FakePilot(http)
    await pilot.enrol(enrolment.secret or "")
    return pilot


async def finish(pilot: FakePilot, offer: Offer) -> Any:
    """Uploads what is not empty and gives the report of a success."""
    names = {"mass.txt": MASS, "stdout.log": b"said\n"}
    outputs = [await pilot.upload(offer, name, data) for name, data in names.items()]
    empty = Output(name="stderr.log", sha256=hashlib.sha256(b"").hexdigest(), size=0)
    return success(offer, (*outputs, empty))


async def check_done(
    manager: Manager, token: str, job: str, receipts: tuple[Receipt, ...], directory: Path
) -> None:
    """What the experiment sees afterwards."""
    async with Client(manager.url, token) as client:
        view = await client.jobs.show(job)
        assert view.state is JobState.SUCCEEDED
        assert {output.name for output in view.outputs} == {"mass.txt", "stdout.log", "stderr.log"}
        target = await client.files.fetch_outputs(view, directory)
        fetched = {path.name: path.read_bytes() for path in target}
        assert fetched == {"mass.txt": MASS, "stdout.log": b"said\n", "stderr.log": b""}
        assert (await client.jobs.logs(job, stream="stderr")).text == ""
        log = await client.jobs.logs(job)
        assert (log.text, log.live) == ("said\n", False)
    [receipt] = receipts
    assert receipt.statement.job == job
    verify_receipt(receipt, manager.signer.public_key)


async def test_a_job_over_a_socket(
    manager: Manager, pilot: FakePilot, experiment: str, tmp_path: Path
) -> None:
    async with Client(manager.url, experiment) as client, pilot.connect() as socket:
        await pilot.say(socket)
        await pilot.hear(socket)
        submitted = await client.jobs.submit([spec()])
        [offer] = (await pilot.hear_until(socket, "offers")).offers
        assert offer.job == submitted.jobs[0]
        await pilot.say(socket, holding=held(offer))
        await pilot.say(socket, holding=held(offer), reports=(await finish(pilot, offer),))
        frame = await pilot.hear_until(socket, "verdicts")
        assert frame.verdicts[0].verdict is VerdictKind.ACCEPTED
        receipts = frame.receipts or (await pilot.hear_until(socket, "receipts")).receipts
    await check_done(manager, experiment, offer.job, receipts, tmp_path)


async def test_a_job_over_polls(
    manager: Manager, pilot: FakePilot, experiment: str, tmp_path: Path
) -> None:
    async with Client(manager.url, experiment) as client:
        first = await pilot.poll()
        assert first is not None
        waiting = asyncio.create_task(pilot.poll())
        await client.jobs.submit([spec()])
        answer = await waiting
    assert answer is not None
    [offer] = answer.offers
    report = await finish(pilot, offer)
    answer = await pilot.poll(holding=held(offer, Phase.REPORTING), reports=(report,))
    while answer is not None and not answer.receipts:
        answer = await pilot.poll(reports=())
    assert answer is not None
    await check_done(manager, experiment, offer.job, answer.receipts, tmp_path)


async def test_a_newer_session_ends_the_older(pilot: FakePilot) -> None:
    async with pilot.connect() as older, pilot.connect() as newer:
        await pilot.say(older)
        await pilot.hear(older)
        pilot.session = None
        await pilot.say(newer)
        await pilot.hear(newer)
        assert (await older.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
        assert older.close_code == 4001


async def test_a_poll_of_an_older_session_is_told_so(pilot: FakePilot) -> None:
    await pilot.poll()
    old, pilot.session = pilot.session, None
    await pilot.poll()
    pilot.session = old
    body = pilot.frame().model_dump_json()
    async with pilot.http.post("/pilot/v1/frames", data=body, headers=pilot.headers) as reply:
        assert reply.status == 409
        assert (await reply.json())["code"] == "session_superseded"


async def polls_heard(http: aiohttp.ClientSession, count: int) -> bool:
    async with http.get("/metrics") as reply:
        return f'copilot_heartbeats_total{{transport="poll"}} {count}.0' in await reply.text()


async def test_a_newer_poll_ends_the_older(pilot: FakePilot) -> None:
    await pilot.poll()
    older = asyncio.create_task(pilot.poll(wait=20))
    await eventually(lambda: polls_heard(pilot.http, 2), what="the older poll at the manager")
    newer = asyncio.create_task(pilot.poll(wait=20))
    assert await asyncio.wait_for(older, 5) is None
    newer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await newer


@pytest.mark.parametrize("token", ["", "forged", "a.b.c"])
async def test_a_bad_token_closes_with_4002(pilot: FakePilot, token: str) -> None:
    pilot.token = token
    async with pilot.connect() as socket:
        await socket.receive(timeout=10)
        assert socket.close_code == 4002
    async with pilot.http.post("/pilot/v1/frames", data="{}", headers=pilot.headers) as reply:
        assert reply.status == 401


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "(body)"),
        ('{"wants": {"cores": -1, "memory_mib": 0, "disk_mib": 0}}', "wants.cores"),
        ('{"wants": {"cores": 1, "memory_mib": 0, "disk_mib": 0}, "version": 2}', "version"),
        ("[" * 10_000, "(body)"),
    ],
)
async def test_a_malformed_frame_closes_with_4004(pilot: FakePilot, text: str, named: str) -> None:
    async with pilot.connect() as socket:
        await socket.send_str(text)
        message = await socket.receive(timeout=10)
        assert socket.close_code == 4004
        assert str(message.extra).startswith(named)


async def test_a_first_frame_of_another_session_leaves_nobody_attached(
    manager: Manager, pilot: FakePilot
) -> None:
    pilot.session = 7
    async with pilot.connect() as socket:
        await pilot.say(socket)
        await socket.receive(timeout=10)
        assert socket.close_code == 4001
    view = await manager.services.pilots.get(OPERATOR, pilot.id)
    assert view.carrier == ""


async def test_a_binary_frame_closes_with_4004(pilot: FakePilot) -> None:
    async with pilot.connect() as socket:
        await socket.send_bytes(b"x")
        await socket.receive(timeout=10)
        assert socket.close_code == 4004


async def test_an_enormous_frame_closes_the_socket(pilot: FakePilot) -> None:
    async with pilot.connect() as socket:
        await socket.send_str(" " * ((1 << 20) + 1))
        await socket.receive(timeout=10)
        assert socket.close_code == 1009


async def test_a_retired_pilot_is_sent_away(
    manager: Manager, pilot: FakePilot, operator: str
) -> None:
    async with pilot.connect() as socket:
        await pilot.say(socket)
        await pilot.hear(socket)
        async with Client(manager.url, operator) as client:
            await client.pilots.retire(pilot.id)
        while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 4003
    async with pilot.http.post("/pilot/v1/challenge", json={"pilot": pilot.id}) as reply:
        assert (reply.status, (await reply.json(content_type=None))["code"]) == (
            403,
            "pilot_retired",
        )


async def test_a_token_is_renewed_with_the_pilots_key(pilot: FakePilot) -> None:
    async with await pilot.renew() as reply:
        assert reply.status == 200
        pilot.token = (await reply.json())["access_token"]
    assert await pilot.poll() is not None
    pilot.key = type(pilot.key)()
    async with await pilot.renew() as reply:
        assert reply.status == 401


async def test_a_used_secret_is_refused_to_another_launcher(
    manager: Manager, http: aiohttp.ClientSession
) -> None:
    [enrolment] = await manager.services.enrolments.create()
    secret = enrolment.secret or ""
    await FakePilot(http).enrol(secret)
    body = FakePilot(http).enrolment(secret).model_dump_json()
    async with http.post("/pilot/v1/enrol", data=body) as reply:
        assert reply.status == 403
        problem = await reply.json()
    assert problem["code"] == "enrolment_refused"
    assert secret not in str(problem)


async def test_stopping_tells_the_sockets(settings: Settings) -> None:
    manager, running = Manager(settings), contextlib.AsyncExitStack()
    url = await running.enter_async_context(manager.running())
    [enrolment] = await manager.services.enrolments.create()
    async with aiohttp.ClientSession(url) as session:
        pilot = FakePilot(session)
        await pilot.enrol(enrolment.secret or "")
        async with pilot.connect() as socket:
            await pilot.say(socket)
            await pilot.hear(socket)
            stopping = asyncio.create_task(running.aclose())
            while (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert socket.close_code == 1012
        async with asyncio.timeout(5):
            await stopping
