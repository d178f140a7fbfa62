# ruff: noqa: S101 - these are tests, in a package so that other distributions can import them
"""The contract as tests, for authors of adapters: subclass, provide the fixtures, run pytest.

    class TestMine(SourceContract):
        @pytest.fixture
        def scheduler(self) -> Scheduler: ...      # a real one, or the nearest thing to it

        @pytest.fixture
        def adapter(self, scheduler) -> Adapter: ...

`AdapterContract` holds for every adapter, `SourceContract` for those with a scheduler behind them.
"""

from collections.abc import Sequence
from typing import Protocol

from copilot_agent.protocol.job import FailureClass, JobSpec, Outcome, Requirements, Usage
from job_manager_adapter.adapters.base import Adapter, Result, Room, UpstreamError

EXPERIMENT = "contract"
SUCCESS = Result(Outcome.SUCCEEDED, exit_code=0, usage=Usage(cpu_seconds=3.0))
FAILURE = Result(
    Outcome.FAILED, exit_code=3, failure_class=FailureClass.PAYLOAD, message="exit code 3"
)


def room(pilots: int = 10, cores: int = 1, platform: str = "linux/x86_64") -> Sequence[Room]:
    return [Room(pilots, cores, 4096, 4096, platform)]


def job(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"experiment": EXPERIMENT, "command": ("true",), **fields})


class Scheduler(Protocol):
    """What the suite does to a scheduler from the side of its users."""

    async def put(self, spec: JobSpec) -> str:
        """Submits a job there; its upstream id."""

    async def state(self, upstream_id: str) -> str:
        """One of waiting, claimed, running, succeeded, failed, cancelled."""

    async def take_back(self, upstream_id: str) -> None:
        """Its owner cancels it there."""

    def break_down(self) -> None:
        """Every call of the adapter fails from now on."""

    def recover(self) -> None: ...

    def another(self) -> Adapter:
        """A fresh adapter on the same scheduler, as after a manager's restart."""


class AdapterContract:
    """Holds for every adapter."""

    async def test_it_starts_and_finds_itself_well(self, adapter: Adapter) -> None:
        await adapter.start()
        findings = await adapter.doctor()
        assert findings, "doctor says at least one thing"
        assert all(finding.good or finding.remedy for finding in findings)
        await adapter.close()

    async def test_no_room_no_jobs(self, adapter: Adapter) -> None:
        await adapter.start()
        assert await adapter.fetch([]) == []
        assert await adapter.cancelled() == []

    async def test_nothing_to_tell_is_no_error(self, adapter: Adapter) -> None:
        await adapter.start()
        await adapter.adopted([])
        await adapter.renew([])


class SourceContract(AdapterContract):
    """Holds for adapters with a scheduler of their own."""

    async def test_a_job_is_claimed_and_carried_through(
        self, adapter: Adapter, scheduler: Scheduler
    ) -> None:
        await adapter.start()
        upstream_id = await scheduler.put(job(name="mass"))
        (sourced,) = await adapter.fetch(room())
        assert sourced.upstream_id == upstream_id and sourced.spec.name == "mass"
        assert await scheduler.state(upstream_id) == "claimed"
        await adapter.adopted([upstream_id])
        await adapter.started(upstream_id, "h-1")
        assert await scheduler.state(upstream_id) == "running"
        await adapter.renew([upstream_id])
        await adapter.finished(upstream_id, SUCCESS)
        assert await scheduler.state(upstream_id) == "succeeded"

    async def test_an_adopted_job_is_not_handed_over_again(
        self, adapter: Adapter, scheduler: Scheduler
    ) -> None:
        await adapter.start()
        upstream_id = await scheduler.put(job())
        (first,) = await adapter.fetch(room())
        (again,) = await adapter.fetch(room())
        assert first.upstream_id == again.upstream_id, "not confirmed, so it comes again"
        await adapter.adopted([upstream_id])
        assert await adapter.fetch(room()) == []
        await adapter.finished(upstream_id, SUCCESS)
        assert await adapter.fetch(room()) == []

    async def test_a_claim_survives_a_restart(self, adapter: Adapter, scheduler: Scheduler) -> None:
        await adapter.start()
        upstream_id = await scheduler.put(job())
        await adapter.fetch(room())
        second = scheduler.another()
        await second.start()
        assert [item.upstream_id for item in await second.fetch(room())] == [upstream_id]
        await second.adopted([upstream_id])
        await second.finished(upstream_id, SUCCESS)
        assert await scheduler.state(upstream_id) == "succeeded"

    async def test_only_what_fits_is_claimed(self, adapter: Adapter, scheduler: Scheduler) -> None:
        await adapter.start()
        big = await scheduler.put(job(requirements=Requirements(cores=8)))
        small = [await scheduler.put(job()) for _ in range(3)]
        fetched = [item.upstream_id for item in await adapter.fetch(room(pilots=1, cores=2))]
        assert len(fetched) == 2 and set(fetched) <= set(small)
        assert await scheduler.state(big) == "waiting"
        await adapter.adopted(fetched)
        assert await adapter.fetch(room(platform="windows/x86_64")) == []

    async def test_every_word_may_come_twice(self, adapter: Adapter, scheduler: Scheduler) -> None:
        await adapter.start()
        upstream_id = await scheduler.put(job())
        await adapter.fetch(room())
        for _ in range(2):
            await adapter.adopted([upstream_id])
            await adapter.started(upstream_id, "h-1")
        for _ in range(2):
            await adapter.finished(upstream_id, FAILURE)
        assert await scheduler.state(upstream_id) == "failed"
        await adapter.started(upstream_id, "h-1")
        assert await scheduler.state(upstream_id) == "failed", "an end is an end"

    async def test_its_owner_takes_a_job_back(self, adapter: Adapter, scheduler: Scheduler) -> None:
        await adapter.start()
        kept, gone = await scheduler.put(job()), await scheduler.put(job())
        await adapter.fetch(room())
        await adapter.adopted([kept, gone])
        assert await adapter.cancelled() == []
        await scheduler.take_back(gone)
        assert await adapter.cancelled() == [gone]
        await adapter.finished(gone, Result(Outcome.CANCELLED))
        assert await adapter.cancelled() == []
        assert await scheduler.state(gone) == "cancelled"

    async def test_an_outage_is_said_and_passes(
        self, adapter: Adapter, scheduler: Scheduler
    ) -> None:
        await adapter.start()
        upstream_id = await scheduler.put(job())
        await adapter.fetch(room())
        await adapter.adopted([upstream_id])
        scheduler.break_down()
        failed = 0
        calls = (
            adapter.fetch(room()),
            adapter.cancelled(),
            adapter.finished(upstream_id, SUCCESS),
        )
        for call in calls:
            try:
                await call
            except UpstreamError:
                failed += 1
        assert failed == len(calls), "each call says that the scheduler is away"
        assert not all(finding.good for finding in await adapter.doctor())
        scheduler.recover()
        await adapter.finished(upstream_id, SUCCESS)
        assert await scheduler.state(upstream_id) == "succeeded"
