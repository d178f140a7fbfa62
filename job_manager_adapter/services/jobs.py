"""Use cases of jobs."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import JobSpec, JobState, Output
from job_manager_adapter.core import explain
from job_manager_adapter.core.explain import Idle
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.core.matching import Kind
from job_manager_adapter.services import job_views as views
from job_manager_adapter.services.cursors import number
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.errors import ForbiddenError, InvalidError, NotFoundError
from job_manager_adapter.services.links import Links
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.store.records import (
    Cancelled,
    JobQuery,
    JobRow,
    NewJob,
    Selected,
    Submission,
)
from job_manager_adapter.views import (
    Changed,
    Explanation,
    JobCounts,
    JobView,
    LogView,
    Page,
    PilotState,
    SubmitReply,
    SubmitRequest,
)

MAX_SPEC_BYTES = 256 * 1024
"""Of one job as JSON; larger data belongs into input files."""
MAX_PROBLEMS = 100
QUEUE = "queue"
TURNS_TO_AN_OFFER = 2
"""Of the event loop, from a claim's commit until its pilot is told; the submitter's answer, which
takes some time to be made, comes after that."""


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
    def __init__(self, dispatcher: Dispatcher, links: Links) -> None:
        self._dispatcher = dispatcher
        self._store = dispatcher.store
        self._links = links

    # Submission

    async def submit(self, principal: Principal, request: SubmitRequest) -> SubmitReply:
        """Stores all jobs or none; returns after the commit.

        Raises InvalidError (`errors` names the fields), ForbiddenError, or CopilotError with
        `unknown_experiment` or `idempotency_conflict`.
        """
        make = self._dispatcher.ids.make
        jobs = tuple(new_job(make("j"), spec) for spec in request.jobs)
        await self._check(principal, request, jobs)
        submission = Submission(
            batch=make("b"),
            jobs=jobs,
            at=self._dispatcher.clock.time(),
            owner=principal.experiment or "",
            key=request.idempotency_key,
            digest=_digest(request) if request.idempotency_key else "",
        )
        ahead = self._claim_ahead(jobs)
        (result,) = await self._store.submit([submission])
        if result.conflict:
            raise CopilotError(
                "this idempotency key came with another request before",
                code=ErrorCode.IDEMPOTENCY_CONFLICT,
                remedy="use a fresh key for a new submission",
            )
        for item in result.waiting:
            self._dispatcher.count(item, item.count)
        if result.created:
            for job in submission.jobs:
                self._dispatcher.events.emit("job", job.id, "waiting", job.experiment)
        self._dispatcher.rematch()
        for _ in range(TURNS_TO_AN_OFFER if ahead else 0):
            await asyncio.sleep(0)
        return SubmitReply(batch=result.batch, jobs=result.jobs, created=result.created)

    def _claim_ahead(self, jobs: Sequence[NewJob]) -> bool:
        """Whether idle pilots claim some of the jobs."""
        if not self._dispatcher.matcher.idle:
            return False
        kinds = (Kind(job.experiment, job.requirements, job.priority) for job in jobs)
        return self._dispatcher.claim_ahead(Counter(kinds))

    async def validate(self, principal: Principal, request: SubmitRequest) -> int:
        """The checks of `submit` without storing; returns how many jobs there are."""
        await self._check(principal, request, [new_job("", spec) for spec in request.jobs])
        return len(request.jobs)

    async def _check(
        self, principal: Principal, request: SubmitRequest, jobs: Sequence[NewJob]
    ) -> None:
        for index, spec in enumerate(request.jobs):
            self._check_experiment(principal, index, spec)
        problems: list[FieldError] = []
        checked: dict[object, list[FieldError]] = {}
        for index, spec in enumerate(request.jobs):
            key = (spec.experiment, spec.inputs)
            if key not in checked:
                checked[key] = await self._links.inputs_present(spec.experiment, spec)
            problems += [
                FieldError(field=f"jobs[{index}].{item.field}", message=item.message)
                for item in (*checked[key], *_size_problems(spec, len(jobs[index].spec)))
            ]
        if problems:
            raise InvalidError(
                f"{problems[0].field}: {problems[0].message}",
                remedy="correct the fields named in `errors`; nothing was stored",
                errors=tuple(problems[:MAX_PROBLEMS]),
            )

    def _check_experiment(self, principal: Principal, index: int, spec: JobSpec) -> None:
        experiments = self._dispatcher.config.experiments
        field = f"jobs[{index}].experiment"
        if spec.experiment not in experiments:
            message = f"unknown experiment {spec.experiment}"
            raise CopilotError(
                message,
                code=ErrorCode.UNKNOWN_EXPERIMENT,
                remedy=f"one of: {', '.join(sorted(experiments)) or 'none is configured'}",
                errors=(FieldError(field=field, message=message),),
            )
        principal.scope(spec.experiment)
        if experiments[spec.experiment].adapter != QUEUE:
            raise ForbiddenError(
                f"the jobs of {spec.experiment} come from its own scheduler",
                remedy="submit the job there",
                errors=(FieldError(field=field, message="has a scheduler of its own"),),
            )

    # Looking

    async def get(self, principal: Principal, job: str) -> JobView:
        """One job with spec, attempts and outputs. Raises NotFoundError (also for others' jobs)."""
        row = await self._row(principal, job)
        attempts = await self._store.attempts(job)
        specs = await self._store.specs([job])
        return views.full(row, specs.get(job), attempts, self._lease(row))

    async def _row(self, principal: Principal, job: str) -> JobRow:
        row = await self._store.job(job)
        if row is None or not principal.may_see(row.experiment):
            raise NotFoundError(f"no job {job}", remedy="see `copilot job list`")
        return row

    def _lease(self, row: JobRow) -> Lease | None:
        return self._dispatcher.leases.get((row.id, row.attempt))

    async def list(
        self, principal: Principal, where: JobFilter, cursor: str | None = None, limit: int = 100
    ) -> Page[JobView]:
        """Raises InvalidError for a cursor that is not ours."""
        query = JobQuery(
            state=where.state,
            experiment=principal.scope(where.experiment),
            batch=where.batch,
            labels=where.labels,
            newest=where.newest,
            after=number(cursor),
            limit=limit,
        )
        rows = await self._store.jobs(query)
        more = str(rows[-1].sequence) if len(rows) == limit else None
        items = tuple(views.brief(row, self._lease(row)) for row in rows)
        return Page(items=items, next_cursor=more)

    async def counts(
        self, principal: Principal, experiment: str | None = None, batch: str | None = None
    ) -> JobCounts:
        """Every state is named, those without jobs with 0."""
        found = await self._store.counts(principal.scope(experiment), batch)
        return JobCounts(counts={state: found.get(state, 0) for state in JobState})

    async def explain(self, principal: Principal, job: str) -> Explanation:
        """Raises NotFoundError."""
        row = await self._row(principal, job)
        if row.state is not JobState.WAITING:
            summary, next_step = self._where(row)
            return Explanation(
                job=job,
                state=row.state,
                summary=summary,
                next_step=next_step,
                pilots_alive=len(self._alive()),
                pilots_fit_now=0,
                pilots_fit_idle=0,
            )
        spec = JobSpec.model_validate_json((await self._store.specs([job]))[job])
        need, alive = spec.requirements, self._alive(row.experiment)
        fit_now = sum(
            count
            for room, count in self._dispatcher.matcher.rooms().items()
            if room.serves(row.experiment) and room.takes(need) and room.fits_now(need)
        )
        fit_idle = sum(capabilities.fits(need) for capabilities in alive)
        summary, next_step = explain.next_step(need, alive, fit_now, fit_idle, self._idle(job))
        return Explanation(
            job=job,
            state=row.state,
            summary=summary,
            pilots_alive=len(alive),
            pilots_fit_now=fit_now,
            pilots_fit_idle=fit_idle,
            requirements=explain.requirements(need, alive),
            waiting_ahead=await self._store.waiting_ahead(row),
            next_step=next_step,
        )

    def _where(self, row: JobRow) -> tuple[str, str]:
        """(summary, next step) for a job that does not wait."""
        dispatcher, lease = self._dispatcher, self._lease(row)
        pilot = dispatcher.fleet.get(lease.pilot) if lease else None
        if lease is None or pilot is None:
            return views.why(row), ""
        now = dispatcher.clock.monotonic()
        if pilot.paused:
            hours = max(lease.deadline - now, 0.0) / 3600
            next_step = f"wait; after {hours:.1f} h more of it the job goes to another pilot"
            return f"{views.why(row)}, which is paused by its volunteer", next_step
        drain = dispatcher.drains.of(pilot.id, pilot.host)
        if drain is not None and (left := drain.seconds_left(now)) is not None:
            next_step = f"wait; in {left:.0f} s it goes to another pilot, uncharged"
            return f"{views.why(row)}, which is asked to drain", next_step
        return views.why(row), ""

    def _idle(self, job: str) -> Idle:
        dispatcher = self._dispatcher
        now, lease_seconds = dispatcher.clock.monotonic(), dispatcher.config.policy.lease_seconds
        states = dispatcher.fleet.states(now, lease_seconds)
        return Idle(
            rests=dispatcher.resting.seconds_left(job),
            draining=states[PilotState.DRAINING],
            paused=states[PilotState.PAUSED],
        )

    def _alive(self, experiment: str | None = None) -> Sequence[Capabilities]:
        dispatcher = self._dispatcher
        now, lease_seconds = dispatcher.clock.monotonic(), dispatcher.config.policy.lease_seconds
        return [
            pilot.capabilities
            for pilot in dispatcher.fleet.pilots.values()
            if pilot.state(now, lease_seconds) is PilotState.ALIVE
            and (experiment is None or pilot.serves(experiment))
        ]

    async def outputs(
        self, principal: Principal, job: str, attempt: int | None = None
    ) -> JobOutputs:
        """Outputs of the given attempt, else of the newest one that reported any.

        Raises NotFoundError for an unknown job or attempt.
        """
        await self._row(principal, job)
        attempts = await self._store.attempts(job)
        for row in reversed(attempts):
            if row.attempt == attempt or (attempt is None and row.outputs):
                return JobOutputs(job, row.attempt, row.outputs)
        if attempt is None:
            return JobOutputs(job, len(attempts), ())
        raise NotFoundError(f"job {job} has no attempt {attempt}")

    async def live_log(
        self, principal: Principal, job: str, attempt: int | None = None
    ) -> LogView | None:
        """The tail from the newest progress while the attempt is open; None afterwards.

        (Then the stored log is the answer.) Raises NotFoundError.
        """
        row = await self._row(principal, job)
        lease = self._lease(row)
        if lease is None or attempt not in (None, row.attempt):
            return None
        text = (lease.progress and lease.progress.log_tail) or ""
        return LogView(job=job, attempt=row.attempt, live=True, text=text)

    # Changing

    async def cancel(self, principal: Principal, jobs: Sequence[str]) -> Changed:
        results = await self._store.cancel(self._selected(principal, jobs))
        for item in results:
            if not item.refusal:
                self._cancelled(item)
        self._dispatcher.rematch()
        return Changed(
            changed=tuple(item.job for item in results if not item.refusal),
            unchanged={item.job: item.refusal for item in results if item.refusal},
        )

    def _cancelled(self, item: Cancelled) -> None:
        if item.waiting is not None:
            self._dispatcher.ceased_to_wait(item.job, item.waiting)
        else:
            key = (item.job, item.attempt)
            self._dispatcher.take_away(key, CommandKind.CANCEL, "cancelled by its owner")
            self._dispatcher.ended["cancelled"] += 1
        self._dispatcher.events.emit("job", item.job, "cancelled", item.experiment)

    async def retry(self, principal: Principal, jobs: Sequence[str]) -> Changed:
        results = await self._store.retry(self._selected(principal, jobs))
        for item in results:
            if item.requeued is not None:
                self._dispatcher.requeued(item.requeued)
                experiment = item.requeued.klass.experiment
                self._dispatcher.events.emit("job", item.job, "waiting", experiment, "retried")
        self._dispatcher.rematch()
        return Changed(
            changed=tuple(item.job for item in results if not item.refusal),
            unchanged={item.job: item.refusal for item in results if item.refusal},
        )

    def _selected(self, principal: Principal, jobs: Sequence[str]) -> Sequence[Selected]:
        at = self._dispatcher.clock.time()
        scope = principal.scope(None)
        return [Selected(job, scope, at) for job in dict.fromkeys(jobs)]


def new_job(job: str, spec: JobSpec, upstream: str | None = None) -> NewJob:
    return NewJob(
        id=job,
        experiment=spec.experiment,
        name=spec.name,
        spec=spec.model_dump_json(exclude_defaults=True).encode(),
        requirements=spec.requirements,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        pause_seconds=spec.limits.pause_seconds,
        reference_cpu_seconds=spec.reference_cpu_seconds,
        labels=spec.labels,
        upstream=upstream,
    )


def _digest(request: SubmitRequest) -> str:
    body = request.model_dump_json(exclude={"idempotency_key"})
    return hashlib.sha256(body.encode()).hexdigest()


def _size_problems(spec: JobSpec, size: int) -> Sequence[FieldError]:
    if size <= MAX_SPEC_BYTES:
        return []
    parts = ("command", "environment", "inputs", "outputs", "labels")
    largest = max(parts, key=lambda name: len(str(getattr(spec, name))))
    message = f"the job is {size} bytes as JSON, at most {MAX_SPEC_BYTES}; put data into an input"
    return [FieldError(field=largest, message=message)]
