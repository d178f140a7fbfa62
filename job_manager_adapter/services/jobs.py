"""Use cases of jobs."""

from collections.abc import Sequence
from dataclasses import dataclass

from copilot_agent.protocol.job import JobState, Output
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import (
    Changed,
    Explanation,
    JobCounts,
    JobView,
    LogView,
    Page,
    SubmitReply,
    SubmitRequest,
)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs; None or empty leaves a condition out. `labels` must all match."""

    state: JobState | None = None
    experiment: str | None = None
    batch: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    newest: bool = False
    """Newest first."""


@dataclass(frozen=True)
class JobOutputs:
    """Which files an attempt has stored, for downloads."""

    job: str
    attempt: int
    outputs: tuple[Output, ...]


class Jobs:
    async def submit(self, principal: Principal, request: SubmitRequest) -> SubmitReply:
        """Stores all jobs or none; returns after the commit.

        Raises InvalidError (`errors` names the fields), ForbiddenError, or CopilotError with
        `unknown_experiment` or `idempotency_conflict`.
        """
        raise NotImplementedError

    async def validate(self, principal: Principal, request: SubmitRequest) -> int:
        """The checks of `submit` without storing; returns how many jobs there are."""
        raise NotImplementedError

    async def get(self, principal: Principal, job: str) -> JobView:
        """One job with spec, attempts and outputs. Raises NotFoundError (also for others' jobs)."""
        raise NotImplementedError

    async def list(
        self, principal: Principal, where: JobFilter, cursor: str | None = None, limit: int = 100
    ) -> Page[JobView]:
        """Raises InvalidError for a cursor that is not ours."""
        raise NotImplementedError

    async def counts(
        self, principal: Principal, experiment: str | None = None, batch: str | None = None
    ) -> JobCounts:
        """Every state is named, those without jobs with 0."""
        raise NotImplementedError

    async def explain(self, principal: Principal, job: str) -> Explanation:
        raise NotImplementedError

    async def cancel(self, principal: Principal, jobs: Sequence[str]) -> Changed:
        raise NotImplementedError

    async def retry(self, principal: Principal, jobs: Sequence[str]) -> Changed:
        raise NotImplementedError

    async def outputs(
        self, principal: Principal, job: str, attempt: int | None = None
    ) -> JobOutputs:
        """Outputs of the given attempt, else of the newest one that reported any.

        Raises NotFoundError for an unknown job or attempt.
        """
        raise NotImplementedError

    async def live_log(
        self, principal: Principal, job: str, attempt: int | None = None
    ) -> LogView | None:
        """The tail from the newest progress while the attempt is open; None afterwards.

        (Then the stored log is the answer.) Raises NotFoundError.
        """
        raise NotImplementedError
