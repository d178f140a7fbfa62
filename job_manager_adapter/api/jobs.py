"""Routes of jobs."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field, StringConstraints

from copilot_agent.protocol.base import Strict, Wire
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.ids import BatchId, ExperimentName
from copilot_agent.protocol.job import STDERR, STDOUT, JobState
from job_manager_adapter.api.download import send_file, send_nothing
from job_manager_adapter.api.route import ALL_ROLES, Call, Reply, Result, Route
from job_manager_adapter.services.files import is_empty
from job_manager_adapter.services.jobs import JobFilter, JobOutputs
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

LOG_BYTES = 64 * 1024

Cursor = Annotated[str, StringConstraints(max_length=200)]
Limit = Annotated[int, Field(ge=1, le=500)]
LabelMatch = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,62}=.{1,128}$")]
AttemptNumber = Annotated[int, Field(ge=1, le=1_000_000)]


class JobsQuery(Strict):
    state: JobState | None = None
    experiment: ExperimentName | None = None
    batch: BatchId | None = None
    label: Annotated[tuple[LabelMatch, ...], Field(max_length=32)] = ()
    """`key=value`, may come several times; all must match."""
    newest: bool = False
    cursor: Cursor | None = None
    limit: Limit = 100


class CountsQuery(Strict):
    experiment: ExperimentName | None = None
    batch: BatchId | None = None


class LogsQuery(Strict):
    stream: Literal["stdout", "stderr"] = "stdout"
    attempt: AttemptNumber | None = None


class AttemptQuery(Strict):
    attempt: AttemptNumber | None = None


class Validated(Wire):
    """How many jobs were checked and found good; nothing was stored."""

    jobs: int


async def submit(call: Call[SubmitRequest, None]) -> Result:
    reply = await call.services.jobs.submit(call.principal, call.body)
    return Reply(reply, 201 if reply.created else 200)


async def validate(call: Call[SubmitRequest, None]) -> Result:
    return Validated(jobs=await call.services.jobs.validate(call.principal, call.body))


async def listing(call: Call[None, JobsQuery]) -> Result:
    query = call.query
    labels = tuple((key, value) for key, _, value in (text.partition("=") for text in query.label))
    where = JobFilter(
        state=query.state,
        experiment=query.experiment,
        batch=query.batch,
        labels=labels,
        newest=query.newest,
    )
    return await call.services.jobs.list(call.principal, where, query.cursor, query.limit)


async def counts(call: Call[None, CountsQuery]) -> Result:
    query = call.query
    return await call.services.jobs.counts(call.principal, query.experiment, query.batch)


async def show(call: Call[None, None]) -> Result:
    return await call.services.jobs.get(call.principal, call.path["job"])


async def explain(call: Call[None, None]) -> Result:
    return await call.services.jobs.explain(call.principal, call.path["job"])


async def logs(call: Call[None, LogsQuery]) -> Result:
    job, query = call.path["job"], call.query
    live = await call.services.jobs.live_log(call.principal, job, query.attempt)
    if live is not None:
        return live
    stored = await call.services.jobs.outputs(call.principal, job, query.attempt)
    name = STDOUT if query.stream == "stdout" else STDERR
    text = call.doors.files.tail(job, stored.attempt, name, LOG_BYTES)
    if text is None and _reported_empty(stored, name):
        text = ""
    if text is None:
        raise CopilotError(
            f"job {job} has no stored {name} yet",
            remedy="the log is there once an attempt has run",
            code=ErrorCode.NOT_FOUND,
        )
    return LogView(job=job, attempt=stored.attempt, live=False, text=text)


async def output(call: Call[None, AttemptQuery]) -> web.StreamResponse:
    job, name = call.path["job"], call.path["name"]
    found = await call.services.jobs.outputs(call.principal, job, call.query.attempt)
    if _reported_empty(found, name):
        return send_nothing(name.rpartition("/")[2])
    stored, path = call.doors.files.output(job, found.attempt, name)
    return send_file(path, stored.sha256, name.rpartition("/")[2])


def _reported_empty(found: JobOutputs, name: str) -> bool:
    """Such an output may never have been uploaded."""
    return any(output.name == name and is_empty(output) for output in found.outputs)


async def cancel(call: Call[JobSelection, None]) -> Result:
    return await call.services.jobs.cancel(call.principal, call.body.jobs)


async def retry(call: Call[JobSelection, None]) -> Result:
    return await call.services.jobs.retry(call.principal, call.body.jobs)


ROUTES = (
    Route(
        "POST", "/api/v1/jobs", submit, "Submit jobs: all of them or none", ALL_ROLES,
        body=SubmitRequest, reply=SubmitReply, status=201,
        statuses={200: "The idempotency key had been seen before; the same jobs again"},
    ),
    Route(
        "POST", "/api/v1/jobs/validate", validate, "Check jobs without storing them", ALL_ROLES,
        body=SubmitRequest, reply=Validated,
    ),
    Route(
        "GET", "/api/v1/jobs", listing, "List jobs", ALL_ROLES,
        query=JobsQuery, reply=Page[JobView],
    ),
    Route(
        "GET", "/api/v1/jobs/counts", counts, "Count jobs by state", ALL_ROLES,
        query=CountsQuery, reply=JobCounts,
    ),
    Route(
        "POST", "/api/v1/jobs/cancel", cancel, "Cancel jobs", ALL_ROLES,
        body=JobSelection, reply=Changed,
    ),
    Route(
        "POST", "/api/v1/jobs/retry", retry, "Revive failed jobs", ALL_ROLES,
        body=JobSelection, reply=Changed,
    ),
    Route("GET", "/api/v1/jobs/{job}", show, "Show one job", ALL_ROLES, reply=JobView),
    Route(
        "GET", "/api/v1/jobs/{job}/explain", explain, "Say why a job is not running", ALL_ROLES,
        reply=Explanation,
    ),
    Route(
        "GET", "/api/v1/jobs/{job}/logs", logs, "The end of a job's log", ALL_ROLES,
        query=LogsQuery, reply=LogView,
    ),
    Route(
        "GET", "/api/v1/jobs/{job}/outputs/{name:.+}", output, "Download an output", ALL_ROLES,
        query=AttemptQuery, statuses={206: "A range of it", 416: "The range is beyond its end"},
    ),
)  # fmt: skip
