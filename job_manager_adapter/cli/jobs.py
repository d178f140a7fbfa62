"""`copilot job …`"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.job import JobState, Outcome
from job_manager_adapter.cli import submit
from job_manager_adapter.cli.ids import an_id
from job_manager_adapter.cli.output import (
    Columns,
    age,
    counted,
    printable,
    show_fields,
    show_rows,
    size,
)
from job_manager_adapter.cli.wait import fetch_all, unsuccessful, wait_for
from job_manager_adapter.client import Client
from job_manager_adapter.views import MAX_SUBMIT, Changed, Explanation, JobView

COLUMNS: Columns[JobView] = {
    "JOB": lambda job: job.id,
    "NAME": lambda job: job.name,
    "STATE": lambda job: job.state.value,
    "ATTEMPT": lambda job: f"{job.attempt}/{job.max_attempts}",
    "SUBMITTED": lambda job: job.submitted_at,
    "MESSAGE": lambda job: job.message or _whereabouts(job),
}

DEAD_COLUMNS: Columns[JobView] = {
    "JOB": lambda job: job.id,
    "NAME": lambda job: job.name,
    "FAILURE": lambda job: job.failure_class.value if job.failure_class else "",
    "ATTEMPT": lambda job: f"{job.attempt}/{job.max_attempts}",
    "ENDED": lambda job: job.changed_at,
    "MESSAGE": lambda job: job.message,
}


def add_parser(nouns: Any) -> None:
    parser = nouns.add_parser("job", help="submit, watch and fetch jobs")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    submit.add_parser(verbs)
    _add_list(verbs)
    _add_simple(verbs, "show", show, "everything about one job, with its attempts and outputs")
    _add_simple(verbs, "explain", explain, "why a job is not running")
    _add_many(verbs, "cancel", cancel, "cancel jobs, also running ones")
    _add_retry(verbs)
    logs_parser = _add_simple(verbs, "logs", logs, "what the payload printed")
    logs_parser.add_argument("--stream", choices=["stdout", "stderr"], default="stdout")
    logs_parser.add_argument("--attempt", type=int, metavar="N", help="default: the newest")
    logs_parser.add_argument("--follow", action="store_true", help="go on until the job has ended")
    fetch_parser = _add_many(verbs, "fetch", fetch, "fetch the outputs of jobs")
    fetch_parser.add_argument(
        "--directory",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="each job's files go into DIR/JOB/ (default: results)",
    )
    wait_parser = _add_many(verbs, "wait", wait, "show progress until jobs have ended")
    wait_parser.add_argument("--fetch", type=Path, metavar="DIR", help="then fetch outputs")


def _add_list(verbs: Any) -> None:
    parser = verbs.add_parser("list", help="jobs, newest first")
    parser.set_defaults(run=list_jobs)
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--state", choices=[state.value for state in JobState])
    state.add_argument("--dead", action="store_true", help="those that have failed for good")
    _add_filters(parser)
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="default 50, most 500")
    parser.add_argument("--cursor", help="where the page before ended")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", metavar="NAME")
    parser.add_argument(
        "--batch", type=an_id("batch"), metavar="ID", help="only those submitted together"
    )
    parser.add_argument("--label", metavar="KEY=VALUE", help="only those with this label")


def _add_retry(verbs: Any) -> None:
    parser = _add_many(
        verbs, "retry", retry, "give failed or cancelled jobs new attempts", or_filters=True
    )
    parser.add_argument(
        "--dead", action="store_true", help="all that have failed for good, or those of a filter:"
    )
    _add_filters(parser)


def _add_simple(
    verbs: Any, name: str, run: Callable[..., Awaitable[int]], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("job", type=an_id("job"), help="a job's id, as `copilot job list` shows it")
    return parser


def _add_many(
    verbs: Any,
    name: str,
    run: Callable[..., Awaitable[int]],
    text: str,
    *,
    or_filters: bool = False,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "jobs",
        nargs="*" if or_filters else "+",
        type=an_id("job"),
        metavar="job",
        help="jobs' ids, as `copilot job list` shows them",
    )
    return parser


async def list_jobs(args: argparse.Namespace, client: Client) -> int:
    page = await client.jobs.list(
        state=JobState.FAILED if args.dead else args.state,
        experiment=args.experiment,
        batch=args.batch,
        label=args.label,
        limit=args.limit,
        cursor=args.cursor,
        newest=True,
    )
    columns = DEAD_COLUMNS if args.dead else COLUMNS
    show_rows(page.items, columns, args.output, lambda job: job.id)
    if page.next_cursor and args.output == "table":
        print(f"more: --cursor {page.next_cursor}")
    return 0


async def show(args: argparse.Namespace, client: Client) -> int:
    job = await client.jobs.show(args.job)
    show_fields(job, _fields(job), args.output, job.id)
    return 0


def _fields(job: JobView) -> dict[str, object]:
    fields: dict[str, object] = {
        "job": job.id,
        "name": job.name,
        "experiment": job.experiment,
        "state": job.state.value,
        "message": job.message,
        "failure": job.failure_class.value if job.failure_class else None,
        "phase": _phase(job),
        "attempts": _attempts(job),
        "submitted": age(job.submitted_at),
        "batch": job.batch,
        "command": " ".join(job.spec.command) if job.spec else None,
    }
    fields.update({f"label {key}": value for key, value in job.labels.items()})
    for attempt in job.attempts:
        end = attempt.outcome.value if attempt.outcome else attempt.state
        parts = [end, attempt.failure_class, attempt.message, f"on {attempt.pilot}"]
        parts.append(f"{attempt.usage.cpu_seconds:.1f} CPU s")
        parts.append(f"a report that came too late: {attempt.late}" if attempt.late else "")
        fields[f"attempt {attempt.attempt}"] = ", ".join(str(part) for part in parts if part)
    for output in job.outputs:
        fields[f"output {output.name}"] = f"{size(output.size)}, sha256 {output.sha256}"
    return fields


def _attempts(job: JobView) -> str:
    free = sum(
        attempt.state == "ended"
        and not attempt.charged
        and attempt.outcome is not Outcome.SUCCEEDED
        for attempt in job.attempts
    )
    more = f", {free} more cost nothing" if free else ""
    return f"{job.attempts_charged} of {job.max_attempts} used{more}"


def _whereabouts(job: JobView) -> str:
    return f"{_phase(job)} on {job.pilot}".strip() if job.pilot else _phase(job)


def _phase(job: JobView) -> str:
    if job.phase is None:
        return ""
    fraction = f" {job.fraction:.0%}" if job.fraction is not None else ""
    return f"{job.phase.value}{fraction}"


async def explain(args: argparse.Namespace, client: Client) -> int:
    answer = await client.jobs.explain(args.job)
    show_fields(answer, _explained(answer), args.output, answer.summary)
    return 0


def _explained(answer: Explanation) -> dict[str, object]:
    fields: dict[str, object] = {
        "job": answer.job,
        "state": answer.state.value,
        "why": answer.summary,
        "pilots": f"{answer.pilots_alive} alive, {answer.pilots_fit_now} have room now, "
        f"{answer.pilots_fit_idle} would if idle",
        "ahead": counted(answer.waiting_ahead, "job"),
    }
    for need in answer.requirements:
        best = f" (best offer {need.best_offer})" if need.best_offer else ""
        fields[need.requirement] = f"{counted(need.pilots_fit, 'pilot')} fit{best}"
    return {**fields, "next step": answer.next_step}


async def cancel(args: argparse.Namespace, client: Client) -> int:
    return _changed(await client.jobs.cancel(args.jobs), "cancelled", args.output)


async def retry(args: argparse.Namespace, client: Client) -> int:
    jobs = list(args.jobs)
    if bool(jobs) is args.dead:
        raise CopilotError("which jobs?", remedy="give their ids, or --dead and perhaps a filter")
    if not args.dead and (args.experiment or args.batch or args.label):
        raise CopilotError("filters go with --dead only", remedy="leave out ids or filters")
    if args.dead:
        dead = await client.jobs.all(
            state=JobState.FAILED, experiment=args.experiment, batch=args.batch, label=args.label
        )
        jobs = [job.id for job in dead]
    answer = Changed()
    for start in range(0, len(jobs), MAX_SUBMIT):
        part = await client.jobs.retry(jobs[start : start + MAX_SUBMIT])
        answer = Changed(
            changed=answer.changed + part.changed, unchanged={**answer.unchanged, **part.unchanged}
        )
    return _changed(answer, "waiting again", args.output)


def _changed(answer: Changed, word: str, mode: str) -> int:
    if mode == "json":
        print(answer.model_dump_json(indent=2))
    elif mode == "quiet":
        for job in answer.changed:
            print(job)
    else:
        for job in answer.changed:
            print(f"{job} {word}")
        for job, why in answer.unchanged.items():
            print(f"{job} left alone: {printable(why)}")
    return 1 if answer.unchanged else 0


async def logs(args: argparse.Namespace, client: Client) -> int:
    shown = ""
    while True:
        log = await client.jobs.logs(args.job, stream=args.stream, attempt=args.attempt)
        fresh = log.text[len(shown) :] if log.text.startswith(shown) else log.text
        if args.output == "json":
            print(log.model_dump_json())
        elif fresh:
            print(printable(fresh), end="" if fresh.endswith("\n") else "\n", flush=True)
        shown = log.text
        if not (args.follow and log.live):
            return 0
        await asyncio.sleep(1)


async def fetch(args: argparse.Namespace, client: Client) -> int:
    files = await fetch_all(client, args.jobs, args.directory)
    if not files:
        raise CopilotError(
            "nothing to fetch", remedy="only ended jobs have outputs; see `copilot job show`"
        )
    return 0


async def wait(args: argparse.Namespace, client: Client) -> int:
    ended = await wait_for(client, args.jobs, plain=args.output != "table")
    if args.fetch:
        await fetch_all(client, args.jobs, args.fetch)
    if args.output == "json":
        print(json.dumps([view.model_dump(mode="json") for view in ended], indent=2))
    return 1 if unsuccessful(ended) else 0
