"""`copilot job submit`: from a job file or flags to stored jobs, and to fetched results."""

import argparse
import asyncio
import json
import math
import re
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.cli.output import counted, is_terminal
from job_manager_adapter.cli.wait import fetch_all, unsuccessful, wait_for
from job_manager_adapter.client import Client
from job_manager_adapter.client.jobfile import (
    JobFile,
    Submission,
    build_job_file,
    expand,
    read_job_file,
)
from job_manager_adapter.views import MAX_SUBMIT

EXAMPLES = """examples:
  copilot job submit zmumu.toml --wait --fetch results
  copilot job submit --experiment demo -- /bin/echo hello
  copilot job submit --experiment demo --input run.py --output-file out.json \\
      --sweep seed=1,2,3 --cores 1 --memory 300 --wait -- python3 run.py {seed}
  copilot job submit scan.toml --array 1-1000 --dry-run

A job file is TOML with the fields of a job, [[inputs]] with `path` or `url`, `array`, [sweep]:
  experiment = "demo"
  command = ["python3", "run.py", "--seed", "{seed}"]
  inputs = [{ path = "run.py" }, { path = "tools.whl", name = "tools", unpack = true }]
  outputs = [{ name = "out.json" }]
  requirements = { cores = 1, memory_mib = 300 }
  limits = { run_seconds = 600 }
  sweep = { seed = [1, 2, 3] }
"""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "submit",
        help="submit jobs from a file or from flags",
        description="Submit jobs; flags override the file, `-- COMMAND` its command.",
        usage="copilot job submit [FILE.toml] [flags] [-- COMMAND ARG …]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", nargs="?", type=Path, help="job file (TOML)")
    _add_job_flags(parser)
    parser.add_argument(
        "--array", metavar="FIRST-LAST[:STEP]", help="a job for each number, which replaces {array}"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="a job for each value, which replaces {NAME}",
    )
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        help="repeating the command with the same key submits nothing twice",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, store nothing")
    parser.add_argument("--wait", action="store_true", help="show progress until all have ended")
    parser.add_argument("--fetch", type=Path, metavar="DIR", help="then fetch outputs (and wait)")


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", help="whose jobs these are")
    parser.add_argument("--name", help="shown in lists")
    _add_many(parser, "--input", "[NAME=]PATH", "a file that the payload needs")
    _add_many(parser, "--unpack", "[NAME=]PATH", "an archive that the payload needs, unpacked")
    parser.add_argument(
        "--output-file",
        action="append",
        default=[],
        dest="outputs",
        metavar="NAME",
        help="a file to bring back",
    )
    _add_many(parser, "--env", "NAME=VALUE", "a variable of the payload's environment")
    _add_many(parser, "--label", "KEY=VALUE", "for `copilot job list --label`")
    parser.add_argument("--cores", type=int, metavar="N", help="cores that the job needs")
    parser.add_argument("--memory", type=int, metavar="MIB", help="memory that the job needs")
    parser.add_argument("--disk", type=int, metavar="MIB", help="disk that the job needs")
    _add_many(parser, "--cpu-flag", "FLAG", "a processor's feature that the job needs")
    parser.add_argument("--run-seconds", type=int, metavar="S", help="longest run time")
    parser.add_argument("--max-attempts", type=int, metavar="N", help="then it has failed")
    parser.add_argument("--priority", type=int, metavar="N", help="higher goes first")
    parser.add_argument(
        "--network", action="store_true", default=None, help="the payload may use the network"
    )


def _add_many(parser: argparse.ArgumentParser, flag: str, metavar: str, text: str) -> None:
    parser.add_argument(flag, action="append", default=[], metavar=metavar, help=text)


async def run(args: argparse.Namespace, client: Client) -> int:
    submission = await asyncio.to_thread(prepare, args)
    if args.dry_run:
        return await _dry_run(client, submission)
    await upload(client, submission)
    jobs = await submit(client, submission.specs, args.idempotency_key)
    waits = bool(args.wait or args.fetch)
    if not (waits and args.output == "json"):  # then there is one document, at the end
        _announce(jobs, args.output)
    if not waits:
        return 0
    ended = await wait_for(client, jobs, plain=args.output != "table" or not is_terminal())
    if args.fetch:
        await fetch_all(client, jobs, args.fetch)
    if args.output == "json":
        views = [view.model_dump(mode="json") for view in ended]
        print(json.dumps({"jobs": list(jobs), "ended": views}, indent=2))
    return 1 if unsuccessful(ended) else 0


def prepare(args: argparse.Namespace) -> Submission:
    """Job file and flags as specs. Raises CopilotError naming what is wrong."""
    file = read_job_file(args.file) if args.file else build_job_file({})
    directory = args.file.parent if args.file else Path()
    file = _override(file, args)
    submission = expand(file, directory)
    for name in unknown_variables(file):
        known = ", ".join(f"{{{each}}}" for each in variables(file))
        print(f"warning: {{{name}}} stays as it is; known are {known}", file=sys.stderr)
    return submission


def variables(file: JobFile) -> list[str]:
    return [*file.sweep, *(["array"] if file.array else [])]


def unknown_variables(file: JobFile) -> list[str]:
    """What looks like a variable of the sweep in name or command, and is none."""
    known = variables(file)
    text = " ".join([str(file.job.get("name", "")), *map(str, file.job.get("command", ()))])
    found = dict.fromkeys(re.findall(r"(?<!\$)\{([A-Za-z_]\w*)\}", text)) if known else {}
    return [name for name in found if name not in known]


def _override(file: JobFile, args: argparse.Namespace) -> JobFile:
    job = dict(file.job)
    simple = ("experiment", "name", "max_attempts", "priority", "network")
    job.update({key: getattr(args, key) for key in simple if getattr(args, key) is not None})
    if args.payload:
        job["command"] = list(args.payload)
    if args.outputs:
        job["outputs"] = [*job.get("outputs", []), *({"name": name} for name in args.outputs)]
    _merge(job, "environment", dict(map(_pair, args.env)))
    _merge(job, "labels", dict(map(_pair, args.label)))
    needs = {"cores": args.cores, "memory_mib": args.memory, "disk_mib": args.disk}
    needs["cpu_flags"] = args.cpu_flag or None
    _merge(job, "requirements", {key: value for key, value in needs.items() if value is not None})
    _merge(job, "limits", {"run_seconds": args.run_seconds} if args.run_seconds else {})
    inputs = [_input(text, unpack=False) for text in args.input]
    inputs += [_input(text, unpack=True) for text in args.unpack]
    sweep = {**file.sweep, **{k: v.split(",") for k, v in map(_pair, args.sweep)}}
    return build_job_file(
        job,
        inputs=[*(given.model_dump() for given in file.inputs), *inputs],
        array=args.array or file.array,
        sweep=sweep,
    )


def _merge(job: dict[str, Any], key: str, values: dict[str, Any]) -> None:
    if values:
        job[key] = {**job.get(key, {}), **values}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CopilotError(f"{text!r} is not NAME=VALUE", code=ErrorCode.INVALID_REQUEST)
    return name, value


def _input(text: str, *, unpack: bool) -> dict[str, Any]:
    name, equals, path = text.partition("=")
    given: dict[str, Any] = {"path": str(Path(path if equals else text).absolute())}
    return {**given, "name": name if equals else None, "unpack": unpack}


async def _dry_run(client: Client, submission: Submission) -> int:
    """The manager checks all but the presence of local inputs, which are hashed here."""
    known = [spec.model_copy(update={"inputs": ()}) for spec in submission.specs]
    for start in range(0, len(known), MAX_SUBMIT):
        await client.jobs.validate(known[start : start + MAX_SUBMIT])
    first = submission.specs[0]
    jobs, files = counted(len(submission.specs), "job"), counted(len(submission.uploads), "file")
    print(f"valid: {jobs}, {files} to upload")
    print(f"the first: {' '.join(first.command)}")
    return 0


async def upload(client: Client, submission: Submission) -> None:
    """Upload the local inputs that the manager doesn't have."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        for sha256, path in submission.uploads.items():
            bar = progress.add_task(f"upload {path.name}", total=path.stat().st_size)

            def moved(done: int, bar: Any = bar) -> None:
                progress.update(bar, completed=done)

            await client.files.upload(path, sha256, moved)


async def submit(
    client: Client, specs: Sequence[JobSpec], key: str | None = None
) -> tuple[JobId, ...]:
    """Submit in batches; a key of our own makes a repeat after a broken connection harmless."""
    key = key or uuid.uuid4().hex
    parts = math.ceil(len(specs) / MAX_SUBMIT)
    jobs: list[JobId] = []
    for part in range(parts):
        batch = specs[part * MAX_SUBMIT : (part + 1) * MAX_SUBMIT]
        part_key = key if parts == 1 else f"{key[:100]}.{part}"
        reply = await client.jobs.submit(batch, idempotency_key=part_key)
        jobs.extend(reply.jobs)
    return tuple(jobs)


def _announce(jobs: Sequence[JobId], mode: str) -> None:
    if mode == "quiet":
        print("\n".join(jobs))
    elif mode == "json":
        print(json.dumps({"jobs": list(jobs)}))
    else:
        last = f" … {jobs[-1]}" if len(jobs) > 1 else ""
        print(f"submitted {counted(len(jobs), 'job')}: {jobs[0]}{last}")
