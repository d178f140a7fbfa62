"""Managers on one database in one process: what they make good when news were lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from copilot_agent.protocol.frames import CommandKind, Held, PilotFrame, Wants
from copilot_agent.protocol.job import JobSpec, JobState, Phase
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter import app
from job_manager_adapter.adapters.base import Adapter
from job_manager_adapter.app import Manager
from job_manager_adapter.services import jobs as use_cases
from job_manager_adapter.services import peers
from job_manager_adapter.services.files import FileService
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.settings import Settings, load
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.records import Claim, Finish, Submission
from job_manager_adapter.views import Role, SubmitRequest
from tests.harness.postgres import Postgres
from tests.harness.programs import eventually
from tests.harness.reference_adapter import FileScheduler, ReferenceAdapter
from tests.harness.stores import ident, receipt, report
from tests.integration.store.worker import worker

SPEC = JobSpec(experiment="demo", command=("/bin/true",))
OPERATOR = Principal("t-test", Role.OPERATOR, None)


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
async def pair(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Manager]]:
    monkeypatch.setattr(peers, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(peers, "TEND_SECONDS", 0.2)
    async with AsyncExitStack() as stack:
        made = [Manager(_settings(url, tmp_path, name)) for name in ("a", "b")]
        for manager in made:
            await stack.enter_async_context(manager.running())
        yield made


def _settings(url: str, folder: Path, name: str) -> Settings:
    return load(
        None,
        {
            "data_dir": str(folder / name),
            "store.url": url,
            "store.shared_dir": str(folder / "shared"),
            "server.port": 0,
            "policy.heartbeat_seconds": 1.0,
            "policy.lease_seconds": 30.0,
            "limits.free_space_mib": 1,
            "experiments": {"demo": {}},
        },
    )


def store_of(manager: Manager) -> PostgresStore:
    assert isinstance(manager.store, PostgresStore)
    return manager.store


async def secret_of(manager: Manager) -> str:
    (view,) = await manager.services.enrolments.create()
    return view.secret or ""


async def submitted(manager: Manager) -> str:
    return (await manager.services.jobs.submit(OPERATOR, SubmitRequest(jobs=(SPEC,)))).jobs[0]


async def attempts(manager: Manager, job: str) -> list[str | None]:
    return [row.outcome for row in await manager.store.attempts(job)]


async def test_who_was_taken_for_dead_takes_its_pilots_back(
    pair: list[Manager], postgres: Postgres, url: str
) -> None:
    here, there = pair
    secret = await secret_of(here)
    async with worker([here.url, there.url], secret, run_seconds=1.5) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: bool(pilot.held))
        taken = "UPDATE pilots SET manager = 2; DELETE FROM managers WHERE number = 1"
        postgres.run("psql", "-d", url, "-c", taken)
        cut = (
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l"
            " WHERE l.locktype = 'advisory' AND l.objid = 1 AND l.objsubid = 2"
        )
        postgres.run("psql", "-d", url, "-c", cut)
        ours = partial(store_of(here).peers.has, pilot.pilot.id)
        await eventually(ours, 10.0, "the pilot back")
        await pilot.until("acceptance", lambda: (job, 1) in pilot.accepted)
        assert pilot.attached == 0
        assert await attempts(here, job) == ["succeeded"]


async def test_a_claim_whose_answer_was_lost_is_offered_after_all(pair: list[Manager]) -> None:
    here, _ = pair
    async with worker([here.url], await secret_of(here)) as pilot:
        pilot_id = pilot.pilot.id
        job = use_cases.new_job(ident("j", 1), SPEC)
        await _quietly(here, Submission(ident("b", 1), (job,), 1.0))
        klass = (await here.store.classes())[0].id
        await here.store.claim([Claim(pilot_id, klass, 1, 2.0)])  # past the services
        store_of(here).peers.recount()
        await pilot.until("acceptance", lambda: (job.id, 1) in pilot.accepted)


async def _quietly(manager: Manager, submission: Submission) -> None:
    """As if the news of it were lost."""
    assert manager.settings.store.url is not None
    store = PostgresStore(manager.settings.store.url.get_secret_value())
    await store.open()
    await store.submit([submission])
    await store.close()


async def test_an_end_that_was_not_heard_of_is_found(
    pair: list[Manager], postgres: Postgres, url: str
) -> None:
    here, _ = pair
    async with worker([here.url], await secret_of(here), run_seconds=600) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: bool(pilot.held))
        end = "UPDATE jobs SET state = 'failed', pilot = NULL"
        postgres.run("psql", "-d", url, "-c", end)
        store_of(here).peers.recount()
        told = (CommandKind.ABANDON, job)
        await pilot.until("command", lambda: told in pilot.commands)
        assert here.services.stats().leases_open == 0


async def test_a_receipt_is_told_though_the_answer_to_its_commit_was_lost(
    pair: list[Manager],
) -> None:
    here, _ = pair
    async with worker([here.url], await secret_of(here), run_seconds=600) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: (job, 1) in pilot.held)
        signed = receipt(job, launcher=pilot.pilot.launcher.public)
        await here.store.finish([Finish(pilot.pilot.id, report(job, outputs=()), 3.0, signed)])
        pilot.held[job, 1] = 0.0  # now it ends, and is reported
        await pilot.until("acceptance", lambda: (job, 1) in pilot.accepted)
        await pilot.until("receipt", lambda: job in pilot.receipts.values())


async def test_jobs_that_nobody_heard_of_are_found(pair: list[Manager]) -> None:
    here, there = pair
    async with worker([there.url], await secret_of(here)) as pilot:
        job = use_cases.new_job(ident("j", 1), SPEC)
        await _quietly(here, Submission(ident("b", 1), (job,), 1.0))
        await pilot.until("acceptance", lambda: (job.id, 1) in pilot.accepted, 5.0)


async def test_the_leader_fetches_work_for_the_other_managers_pilots(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FileScheduler(tmp_path / "scheduler.json")

    def adapters(_: Settings) -> dict[str, Adapter]:
        options = {"path": str(scheduler.path), "poll_seconds": 0.2}
        return {"demo": ReferenceAdapter("demo", options)}

    monkeypatch.setattr(app, "build_adapters", adapters)
    monkeypatch.setattr(peers, "TEND_SECONDS", 0.2)
    async with AsyncExitStack() as stack:
        leader, other = (Manager(_settings(url, tmp_path, name)) for name in ("a", "b"))
        await stack.enter_async_context(leader.running())
        await stack.enter_async_context(other.running())
        async with worker([other.url], await secret_of(leader)) as pilot:
            name = await scheduler.put(SPEC)
            await pilot.until("acceptance", lambda: bool(pilot.accepted))

            async def told() -> bool:
                return await scheduler.state(name) == JobState.SUCCEEDED

            await eventually(told, 10.0, "the scheduler told")
        assert leader.services.leads and not other.services.leads


async def test_who_comes_before_the_news_of_its_adoption_keeps_what_it_holds(
    pair: list[Manager], postgres: Postgres, url: str
) -> None:
    here, there = pair
    async with worker([here.url], await secret_of(here), run_seconds=600) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: (job, 1) in pilot.held)
        name = pilot.pilot.id
        postgres.run("psql", "-d", url, "-c", "UPDATE pilots SET manager = 2")
        session = await there.services.pilots.attach(name, "websocket")
        held = Held(job=job, attempt=1, phase=Phase.RUNNING)
        wants = Wants(cores=0, memory_mib=0, disk_mib=0)
        session.receive(PilotFrame(wants=wants, holding=(held,)))
        frame = await session.next(5)
        assert frame is not None and not frame.commands
        assert there.services.stats().leases_open == 1


async def test_what_a_pilot_holds_is_watched_though_its_attach_failed(
    pair: list[Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair

    async def away(*_: object) -> None:
        raise StoreError("away")

    async with worker([here.url], await secret_of(here), run_seconds=600) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: (job, 1) in pilot.held)
        monkeypatch.setattr(there.store, "receipts_due", away)
        with pytest.raises(StoreError):
            await there.services.pilots.attach(pilot.pilot.id, "websocket")
        assert there.services.stats().leases_open == 1


async def test_who_moves_while_it_reports_gets_its_receipt(
    pair: list[Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> list[str]:
        asked.set()
        await gate.wait()
        return []

    monkeypatch.setattr(FileService, "outputs_present", slow)
    async with worker([here.url], await secret_of(here)) as pilot:
        job = await submitted(here)
        await asked.wait()
        await there.services.pilots.attach(pilot.pilot.id, "websocket")

        async def left() -> bool:
            return here.services.stats().leases_open == 0

        await eventually(left, 5.0, "the pilot gone")
        gate.set()

        async def ended() -> bool:
            return await attempts(here, job) == ["succeeded"]

        await eventually(ended, 5.0, "the end")
        assert (await here.store.ledger(None)).receipts == 1


@pytest.mark.parametrize("heard", [True, False])
async def test_a_receipt_is_told_though_the_store_was_away_when_its_news_came(
    pair: list[Manager],
    postgres: Postgres,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    heard: bool,
) -> None:
    """`heard`: the news of the end came; else it is found by reading everything again."""
    here, there = pair
    receipts_due, failures = here.store.receipts_due, iter([StoreError("away")])

    async def shaky(launcher_key: str, limit: int) -> list[Receipt]:
        for error in failures:
            raise error
        return await receipts_due(launcher_key, limit)

    async with worker([here.url], await secret_of(here), run_seconds=600) as pilot:
        job = await submitted(here)
        await pilot.until("offer", lambda: (job, 1) in pilot.held)
        name = pilot.pilot.id
        signed = receipt(job, launcher=pilot.pilot.launcher.public)
        monkeypatch.setattr(here.store, "receipts_due", shaky)
        if not heard:
            postgres.run("psql", "-d", url, "-c", "UPDATE pilots SET manager = NULL")
        await there.store.finish([Finish(name, report(job, outputs=()), 3.0, signed)])
        if not heard:
            postgres.run("psql", "-d", url, "-c", "UPDATE pilots SET manager = 1")
            store_of(here).peers.recount()
        await pilot.until("receipt", lambda: job in pilot.receipts.values())
