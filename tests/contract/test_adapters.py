"""The adapters' contract over {built-in queue, reference adapter outside the packages}."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import JobState
from job_manager_adapter.adapters.base import Adapter, UpstreamError
from job_manager_adapter.adapters.queue import QueueAdapter
from job_manager_adapter.adapters.registry import Registry
from job_manager_adapter.adapters.testing import AdapterContract, SourceContract, job
from job_manager_adapter.services.errors import ForbiddenError
from job_manager_adapter.store.sqlite import SqliteStore
from job_manager_adapter.views import SubmitRequest
from tests.harness.reference_adapter import FileScheduler, ReferenceAdapter
from tests.unit.job_manager_adapter.services.world import LEASE, OPERATOR, World, spec


class TestQueue(AdapterContract):
    @pytest.fixture
    def adapter(self) -> Adapter:
        return QueueAdapter("contract", {})


class TestReference(SourceContract):
    @pytest.fixture
    def scheduler(self, tmp_path: Path) -> FileScheduler:
        return FileScheduler(tmp_path / "scheduler.json")

    @pytest.fixture
    def adapter(self, scheduler: FileScheduler) -> Adapter:
        return scheduler.another()


# How adapters are found


def test_an_adapter_is_plugged_in_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "reference_adapter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reference-adapter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[copilot.adapters]\nreference = tests.harness.reference_adapter:ReferenceAdapter\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry()
    assert "reference" in registry.names()
    adapter = registry.build("reference", "cms", {"path": "x.json"})
    assert isinstance(adapter, ReferenceAdapter)


def test_mistakes_in_the_configuration_are_named() -> None:
    registry = Registry({"reference": ReferenceAdapter, "queue": QueueAdapter})
    with pytest.raises(CopilotError, match="no adapter 'slrum'") as unknown:
        registry.build("slrum", "cms", {})
    assert "reference" in unknown.value.remedy
    with pytest.raises(CopilotError, match=r"experiments\.cms: option 'path' is missing"):
        registry.build("reference", "cms", {})
    with pytest.raises(CopilotError, match="no option 'path'"):
        registry.build("queue", "cms", {"path": 1})


# A scheduler behind a manager


@pytest.fixture
def scheduler(tmp_path: Path) -> FileScheduler:
    return FileScheduler(tmp_path / "scheduler.json")


@pytest.fixture
async def world(tmp_path: Path, scheduler: FileScheduler) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "manager.db")
    await store.open()
    world = await World(store, {"cms": scheduler.another()}).start()
    yield world
    await world.services.close()
    await store.close()


async def sync(world: World) -> None:
    await world.services.upstreams[0].sync()
    await world.settle()


async def test_a_job_comes_from_its_scheduler_and_goes_back(
    world: World, scheduler: FileScheduler
) -> None:
    upstream_id = await scheduler.put(job())
    await sync(world)
    assert await scheduler.state(upstream_id) == "waiting"  # nobody has room
    pilot = await world.pilot()
    await sync(world)
    frame = await pilot.hear()
    assert frame is not None and len(frame.offers) == 1
    offer = frame.offers[0]
    assert offer.spec.experiment == "cms"
    await pilot.run(offer.job)
    await sync(world)
    assert await scheduler.state(upstream_id) == "running"
    await pilot.finish(offer.job)
    scheduler.break_down()
    with pytest.raises(UpstreamError):
        await sync(world)
    scheduler.recover()
    await sync(world)
    entry = scheduler.read()[upstream_id]
    assert (entry["state"], entry["outputs"]) == ("succeeded", ["stdout.log", "stderr.log"])
    assert entry["host"] == pilot.host and entry["renewals"] >= 1


async def test_an_outage_upstream_kills_no_running_work(
    world: World, scheduler: FileScheduler
) -> None:
    await scheduler.put(job())
    pilot = await world.pilot()
    await sync(world)
    await pilot.hear()
    (key,) = pilot.holding
    scheduler.break_down()
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await sync(world)
        world.clock.advance(LEASE / 2)
        frame = await pilot.run(key[0])
        await world.services.housekeeping.expire()
        assert frame is None
    assert (await world.job(key[0])).state is JobState.RUNNING


async def test_what_its_owner_takes_back_is_cancelled(
    world: World, scheduler: FileScheduler
) -> None:
    upstream_id = await scheduler.put(job())
    pilot = await world.pilot()
    await sync(world)
    await pilot.hear()
    (key,) = pilot.holding
    await scheduler.take_back(upstream_id)
    await sync(world)
    frame = await pilot.hear()
    assert frame is not None and [c.kind for c in frame.commands] == [CommandKind.CANCEL]
    await sync(world)
    assert await scheduler.state(upstream_id) == "cancelled"
    assert (await world.job(key[0])).state is JobState.CANCELLED


async def test_a_claimed_job_is_stored_once_whatever_happens(
    world: World, scheduler: FileScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scheduler.put(job())
    pilot = await world.pilot()
    adapter = world.adapters["cms"]

    async def down(upstream_ids: object) -> None:
        raise UpstreamError("gone in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(adapter, "adopted", down)
        with pytest.raises(UpstreamError):
            await sync(world)
    await world.restart()
    await pilot.attach()
    await sync(world)
    await pilot.hear()
    assert len(pilot.holding) == 1
    counts = await world.services.jobs.counts(OPERATOR)
    assert sum(counts.counts.values()) == 1


async def test_its_jobs_are_not_submitted_past_the_scheduler(world: World) -> None:
    with pytest.raises(ForbiddenError, match="own scheduler"):
        await world.services.jobs.submit(OPERATOR, SubmitRequest(jobs=(spec(experiment="cms"),)))
