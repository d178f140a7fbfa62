"""`make demo`: an experiment's jobs through the manager, a launcher, a real VM, and back."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobState
from copilot_agent.protocol.receipt import Receipt
from deploy.demo import native, physics
from deploy.demo.display import Display
from deploy.demo.options import Options, parse
from deploy.demo.processes import Process, appear, call, program
from deploy.demo.summary import Summary, credit_of, summarise
from deploy.demo.vm import facts, read_status, words
from deploy.demo.xmpp import Door, prosody
from job_manager_adapter.cli.output import complain
from job_manager_adapter.cli.submit import submit, upload
from job_manager_adapter.client import Client
from job_manager_adapter.client.jobfile import Submission, build_job_file, expand
from job_manager_adapter.views import JobView

EXPERIMENT = "demo"
CONFIG = f"""\
[server]
listen = "127.0.0.1"
port = 0

[policy]
heartbeat_seconds = 2
lease_seconds = 60

[experiments.{EXPERIMENT}]
adapter = "queue"
"""
LOOK = 0.5
"""Seconds between two looks at what happens."""


@dataclass(frozen=True)
class Stage:
    """What is running, and where."""

    options: Options
    work: Path
    display: Display
    url: str
    client: Client
    launcher: Process
    status: Path


async def run(options: Options, display: Display) -> Summary:
    """The whole demo. Raises CopilotError when something goes wrong; leaves nothing running."""
    started = time.monotonic()
    _prepare(options.out)
    with tempfile.TemporaryDirectory(prefix="copilot-demo-") as name:
        work = Path(name)
        async with stage(options, work, display) as running:
            jobs = await submit_sweep(running)
            ended = await watch(running, jobs)
            display.step("the same seed natively")
            seed = 1
            alone = await native.run(wheel(options.cache, "cp311"), seed, options.events, work)
            (options.out / "native.json").write_text(alone.model_dump_json() + "\n")
            display.step("fetching and merging")
            results = await fetch(running, ended)
            vm = facts(read_status(running.status))
            credit = await check_credit(running, ended)
            carrier = running.display.scene.pilots[0].carrier
        spectrum = physics.merge(list(results.values()))
        physics.draw(spectrum, options.out / "mass.png")
        wall = time.monotonic() - started
        summary = summarise(ended, spectrum, credit, carrier, vm, wall, (results[seed], alone))
        target = options.out / "summary.json"
        target.write_text(json.dumps(summary.model_dump(), indent=2) + "\n")
        return summary


def _prepare(out: Path) -> None:
    out.mkdir(exist_ok=True)
    for old in ("mass.png", "native.json", "receipts.jsonl", "summary.json"):
        (out / old).unlink(missing_ok=True)
    for old_directory in ("outputs", "logs"):
        shutil.rmtree(out / old_directory, ignore_errors=True)
    (out / "logs").mkdir()


@asynccontextmanager
async def stage(options: Options, work: Path, display: Display) -> AsyncIterator[Stage]:
    """Manager and launcher, and an XMPP server if one is wanted, started and stopped."""
    async with contextlib.AsyncExitStack() as stack:
        xmpp = None
        if options.transport == "xmpp":
            display.step("starting the XMPP server")
            xmpp = await stack.enter_async_context(prosody(work))
        yield await stack.enter_async_context(_programs(options, work, display, xmpp))
        display.step("stopping")


@asynccontextmanager
async def _programs(
    options: Options, work: Path, display: Display, xmpp: Door | None
) -> AsyncIterator[Stage]:
    logs = options.out / "logs"
    data = work / "manager"
    config = work / "manager.toml"
    config.write_text(CONFIG + (xmpp.settings if xmpp else ""))
    tools = Path(sys.executable).parent
    manager = (str(tools / "copilot-manager"), "--config", str(config), "--data-dir", str(data))
    display.step("starting the manager")
    async with program("the manager", (*manager, "serve"), logs / "manager.log") as serving:
        url = await appear(data / "manager.url", serving)
        token = await appear(data / "operator.token", serving)
        secret = await _enrolment(manager, work)
        display.step("starting the launcher")
        state = work / "launcher"
        argv = _launcher_argv(options, tools, url, secret, state)
        argv += xmpp.launcher_options if xmpp else ()
        async with (
            program("the launcher", argv, logs / "launcher.log") as launcher,
            Client(url, token) as client,
        ):
            yield Stage(options, work, display, url, client, launcher, state / "status.json")


async def _enrolment(manager: Sequence[str], work: Path) -> Path:
    secret = await call((*manager, "enrolment", "create", "--expires", "1d", "--output", "quiet"))
    target = work / "enrolment"
    target.touch(mode=0o600)
    target.write_text(secret)
    return target


def _launcher_argv(
    options: Options, tools: Path, url: str, secret: Path, state: Path
) -> tuple[str, ...]:
    image = options.cache / "image"
    return (
        *(str(tools / "vm-launcher"), "run", "--manager", url, "--state", str(state)),
        *("--image", str(image), "--image-key", str(image / "image-key.pub")),
        *("--enrolment-file", str(secret)),
        *("--cpus", str(options.cpus), "--memory", str(options.memory_mib)),
    )


def wheel(cache: Path, tag: str) -> Path:
    """The Pythia wheel for one version of Python, which the set-up has downloaded."""
    found = sorted((cache / "wheels").glob(f"pythia8mc-*-{tag}-{tag}-*.whl"))
    if not found:
        raise CopilotError(f"no Pythia wheel for {tag} in {cache}", remedy="run `make demo`")
    return found[-1]


async def submit_sweep(running: Stage) -> tuple[JobId, ...]:
    """One job for each seed, as a user's job file would say it."""
    options = running.options
    job = {
        "experiment": EXPERIMENT,
        "name": "zmumu-{seed}",
        "command": ["python3", "zmumu.py", "--seed", "{seed}", "--events", str(options.events)],
        "outputs": [{"name": "masses.json"}],
        "requirements": {"cores": 1, "memory_mib": 300, "disk_mib": 200},
        "limits": {"run_seconds": 1800},
    }
    inputs = [
        {"path": str(native.PAYLOAD), "name": "zmumu.py"},
        {"path": str(wheel(options.cache, "cp313")), "name": "pythia", "unpack": True},
    ]
    sweep = {"seed": tuple(range(1, options.jobs + 1))}
    submission: Submission = expand(build_job_file(job, inputs=inputs, sweep=sweep), Path())
    running.display.step("submitting")
    await upload(running.client, submission)
    return await submit(running.client, submission.specs)


async def watch(running: Stage, jobs: Sequence[JobId]) -> list[JobView]:
    """Show what happens until every job has ended. Raises CopilotError unless all succeeded."""
    running.display.step("jobs run")
    while True:
        running.launcher.check()
        await look(running, jobs)
        views = list(running.display.scene.jobs)
        if len(views) == len(jobs) and all(view.state.final for view in views):
            break
        await asyncio.sleep(LOOK)
    ended = [await running.client.jobs.show(job) for job in jobs]
    for view in ended:
        if view.state is not JobState.SUCCEEDED:
            raise CopilotError(f"{view.name} {view.state.value}: {view.message}")
    return ended


async def look(running: Stage, jobs: Sequence[JobId]) -> None:
    scene = running.display.scene
    batch = await running.client.jobs.list(limit=500)
    by_id = {view.id: view for view in batch.items}
    scene.jobs = [by_id[job] for job in jobs if job in by_id]
    scene.pilots = (await running.client.pilots.list()).items
    scene.credit = (await running.client.credit.total()).granted
    status = read_status(running.status)
    scene.vm, scene.vm_details = words(status)
    running.display.update()


async def fetch(running: Stage, jobs: Sequence[JobView]) -> dict[int, physics.Masses]:
    """Fetch all outputs; the results by seed."""
    results = {}
    for job in jobs:
        files = await running.client.files.fetch_outputs(job, running.options.out / "outputs")
        found = next(path for path in files if path.name == "masses.json")
        result = physics.read(found)
        results[result.seed] = result
    return results


async def check_credit(running: Stage, jobs: Sequence[JobView]) -> float:
    """Wait for the launcher to have every receipt, keep them, and recompute the sum.

    Raises CopilotError if launcher and manager disagree.
    """
    ledger = await running.client.credit.total()
    kept = running.status.with_name("receipts.jsonl")
    deadline = time.monotonic() + 30
    while len(receipts := _receipts(kept)) < len(jobs):
        if time.monotonic() > deadline:
            raise CopilotError(f"the launcher has {len(receipts)} of {len(jobs)} receipts")
        await asyncio.sleep(0.2)
    shutil.copyfile(kept, running.options.out / "receipts.jsonl")
    total = credit_of(receipts, ledger.manager_key)
    if abs(total - ledger.granted) > 1e-9:
        raise CopilotError(f"receipts say {total}, the manager's ledger says {ledger.granted}")
    return total


def _receipts(path: Path) -> list[Receipt]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [Receipt.model_validate_json(line) for line in lines]


def conclude(display: Display, options: Options, summary: Summary) -> None:
    say = display.console.print
    say(Text(f"\n{summary.succeeded} of {summary.jobs} jobs succeeded", style="bold green"))
    mean = f"{summary.mean_mass_gev:.2f} ± {summary.mean_mass_error_gev:.2f} GeV"
    say(Text(f"dimuon mass: {mean} from {summary.events} events"))
    say(Text(f"credit granted: {summary.credit_granted:.4f} ({summary.cpu_seconds:.0f} CPU s)"))
    same = "identical bit by bit" if summary.native_identical else "NOT identical"
    say(Text(f"guest and native results of the same seed: {same}"))
    say(Text(f"pilot and manager talked over {summary.carrier}"))
    say(Text(f"VM: {summary.accelerator}, first word after {summary.vm_boot_seconds:.1f} s"))
    say(Text(f"all in all {summary.wall_seconds:.0f} s; everything is in {options.out}"))


async def main_task(options: Options, display: Display) -> Summary:
    """`run`, cancelled by SIGTERM as by Ctrl-C."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options, display)


def main() -> int:
    options = parse()
    display = Display(plain=options.plain)
    try:
        with display:
            summary = asyncio.run(main_task(options, display))
    except CopilotError as error:
        complain(error)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted; everything was stopped\n")
        return 130
    conclude(display, options, summary)
    return 0 if as_promised(display, summary) else 1


def as_promised(display: Display, summary: Summary) -> bool:
    """Says what is not as it should be; the jobs themselves have succeeded."""
    faults = []
    if not physics.sits_on_the_peak(summary.mean_mass_gev, summary.mean_mass_error_gev):
        faults.append(f"the mean mass is not on the Z peak at {physics.Z_MASS} GeV")
    if not summary.native_identical:
        faults.append("native.json differs from the guest's result of the same seed in outputs/")
    for fault in faults:
        display.console.print(Text(f"NOT as it should be: {fault}", style="bold red"))
    return not faults


if __name__ == "__main__":
    sys.exit(main())
