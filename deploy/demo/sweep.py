"""The experiment's side of the demo: a sweep of jobs, from submission to fetched outputs."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobState
from deploy.demo import native, physics
from deploy.demo.stage import EXPERIMENT, Stage
from deploy.demo.vm import words
from job_manager_adapter.cli.submit import submit, upload
from job_manager_adapter.client.jobfile import Submission, build_job_file, expand
from job_manager_adapter.views import JobView
from vm_launcher.state import Status

LOOK = 0.5
"""Seconds between two looks at what happens."""


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


async def watch(running: Stage, jobs: Sequence[JobId]) -> tuple[list[JobView], Status]:
    """Show what happens until every job has ended; the launcher's status at that time.

    Raises CopilotError unless all succeeded.
    """
    running.display.step("jobs run")
    while True:
        running.host.check()
        status = await look(running, jobs)
        views = list(running.display.scene.jobs)
        if len(views) == len(jobs) and all(view.state.final for view in views):
            break
        await asyncio.sleep(LOOK)
    ended = [await running.client.jobs.show(job) for job in jobs]
    for view in ended:
        if view.state is not JobState.SUCCEEDED:
            raise CopilotError(f"{view.name} {view.state.value}: {view.message}")
    return ended, status


async def look(running: Stage, jobs: Sequence[JobId]) -> Status:
    scene = running.display.scene
    batch = await running.client.jobs.list(limit=500)
    by_id = {view.id: view for view in batch.items}
    scene.jobs = [by_id[job] for job in jobs if job in by_id]
    scene.pilots = (await running.client.pilots.list()).items
    scene.credit = (await running.client.credit.total()).granted
    status = await running.host.look(scene)
    scene.vm, scene.vm_details = words(status)
    running.display.update()
    return status


async def fetch(running: Stage, jobs: Sequence[JobView]) -> dict[int, physics.Masses]:
    """Fetch all outputs; the results by seed."""
    results = {}
    for job in jobs:
        files = await running.client.files.fetch_outputs(job, running.options.out / "outputs")
        found = next(path for path in files if path.name == "masses.json")
        result = physics.read(found)
        results[result.seed] = result
    return results
