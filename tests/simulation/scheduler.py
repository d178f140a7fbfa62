"""An experiment's own scheduler: it owns jobs, and hears what became of them."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.adapters.base import (
    Finding,
    Packing,
    Result,
    Room,
    SourcedJob,
    UpstreamError,
)
from tests.simulation.ledger import Ledger, UpstreamEnd
from tests.simulation.loop import Universe
from tests.simulation.steps import Step, Steps


class Scheduler:
    """An `Adapter`; it outlives managers. `jobs` says what our ids of its jobs are."""

    poll_seconds: float | None = 4.0

    def __init__(self, universe: Universe, ledger: Ledger, steps: Steps) -> None:
        self.jobs: dict[str, str] = {}
        self._universe = universe
        self._ledger = ledger
        self._steps = steps
        self._waiting: dict[str, JobSpec] = {}
        self._handed: dict[str, JobSpec] = {}
        """Claimed, and not yet confirmed."""
        self._count = itertools.count(1)

    def add(self, specs: Sequence[JobSpec]) -> None:
        for spec in specs:
            self._waiting[f"up-{next(self._count)}"] = spec

    @property
    def settled(self) -> bool:
        """Everything was taken over, and it has heard how each of them ended."""
        told = {end.upstream for end in self._ledger.upstream}
        return not (self._waiting or self._handed) and told >= self._ledger.upstream_claimed.keys()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def _answer(self) -> None:
        """Its network: slow at times, and now and then the answer does not come."""
        chance = self._universe.random
        await asyncio.sleep(chance.choice((0.01, 0.05, 0.5)))
        if chance.random() < 0.03:
            raise UpstreamError("the scheduler did not answer")

    async def fetch(self, room: Sequence[Room]) -> list[SourcedJob]:
        packing = Packing(room)
        for upstream, spec in list(self._waiting.items()):
            if packing.take(spec.requirements):
                self._handed[upstream] = self._waiting.pop(upstream)
        await self._answer()
        return [SourcedJob(upstream, spec) for upstream, spec in self._handed.items()]

    async def adopted(self, upstream_ids: Sequence[str]) -> None:
        for upstream in upstream_ids:
            self._handed.pop(upstream, None)
            self._ledger.upstream_claimed.setdefault(upstream, self._universe.now)
        await self._answer()

    async def started(self, upstream_id: str, host: str) -> None:
        await self._answer()

    async def renew(self, upstream_ids: Sequence[str]) -> None: ...

    async def finished(self, upstream_id: str, result: Result) -> None:
        self._universe.note("scheduler", f"{upstream_id} {result.outcome}")
        self._ledger.upstream.append(UpstreamEnd(upstream_id, result.outcome))
        job = self.jobs.get(upstream_id, "")
        self._steps.enter(Step.TOLD, job)
        await self._answer()
        self._steps.leave(job, Step.TOLD)

    async def cancelled(self) -> list[str]:
        return []

    async def doctor(self) -> list[Finding]:
        return []


def adapter(scheduler: Scheduler) -> Any:
    return scheduler
