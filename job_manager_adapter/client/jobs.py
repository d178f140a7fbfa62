"""Jobs, as a user sees them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from pydantic import RootModel

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.client.http import Http
from job_manager_adapter.views import (
    Changed,
    Explanation,
    JobCounts,
    JobSelection,
    JobView,
    LogView,
    Page,
    SubmitReply,
    SubmitRequest,
)

_WATCH_LIMIT = 500


class _Valid(RootModel[dict[str, int]]):
    pass


class Jobs:
    """`client.jobs`. Every method raises ApiError and UnreachableError."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def submit(
        self, specs: Iterable[JobSpec], *, idempotency_key: str | None = None
    ) -> SubmitReply:
        """Store the jobs, all or none. With a key it may be repeated without harm."""
        request = SubmitRequest(jobs=tuple(specs), idempotency_key=idempotency_key)
        return await self._http.post(
            "api/v1/jobs", request, SubmitReply, repeat=idempotency_key is not None
        )

    async def validate(self, specs: Iterable[JobSpec]) -> int:
        """Have the manager check the jobs and store nothing; returns how many there are."""
        request = SubmitRequest(jobs=tuple(specs))
        reply = await self._http.post("api/v1/jobs/validate", request, _Valid, repeat=True)
        return reply.root["jobs"]

    async def list(
        self,
        *,
        state: str | None = None,
        experiment: str | None = None,
        batch: str | None = None,
        label: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest: bool = False,
    ) -> Page[JobView]:
        return await self._http.get(
            "api/v1/jobs",
            Page[JobView],
            state=state,
            experiment=experiment,
            batch=batch,
            label=label,
            cursor=cursor,
            limit=limit,
            newest=1 if newest else None,
        )

    async def all(
        self,
        *,
        state: str | None = None,
        experiment: str | None = None,
        batch: str | None = None,
        label: str | None = None,
        limit: int = _WATCH_LIMIT,
    ) -> Sequence[JobView]:
        """Every job that matches, oldest first, in pages of `limit`."""
        jobs: list[JobView] = []
        cursor: str | None = None
        while True:
            page = await self.list(
                state=state,
                experiment=experiment,
                batch=batch,
                label=label,
                limit=limit,
                cursor=cursor,
            )
            jobs.extend(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return jobs

    async def counts(self, *, experiment: str | None = None, batch: str | None = None) -> JobCounts:
        return await self._http.get(
            "api/v1/jobs/counts", JobCounts, experiment=experiment, batch=batch
        )

    async def show(self, job: JobId) -> JobView:
        return await self._http.get(f"api/v1/jobs/{job}", JobView)

    async def explain(self, job: JobId) -> Explanation:
        return await self._http.get(f"api/v1/jobs/{job}/explain", Explanation)

    async def logs(
        self, job: JobId, *, stream: str = "stdout", attempt: int | None = None
    ) -> LogView:
        return await self._http.get(
            f"api/v1/jobs/{job}/logs", LogView, stream=stream, attempt=attempt
        )

    async def cancel(self, jobs: Iterable[JobId]) -> Changed:
        selection = JobSelection(jobs=tuple(jobs))
        return await self._http.post("api/v1/jobs/cancel", selection, Changed, repeat=True)

    async def retry(self, jobs: Iterable[JobId]) -> Changed:
        selection = JobSelection(jobs=tuple(jobs))
        return await self._http.post("api/v1/jobs/retry", selection, Changed)

    async def wait(self, jobs: Iterable[JobId], *, period: float = 1.0) -> AsyncIterator[JobView]:
        """Yield each job once, when it has ended; `period` seconds between looks."""
        left = list(dict.fromkeys(jobs))
        while left:
            for job in list(left):
                view = await self.show(job)
                if view.state.final:
                    left.remove(job)
                    yield view
            if left:
                await asyncio.sleep(period)
