"""Watching jobs until they have ended, and fetching what they left."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobState
from job_manager_adapter.cli.output import counted, printable, wide_console
from job_manager_adapter.client import Client
from job_manager_adapter.client.files import outputs_expected
from job_manager_adapter.views import JobView

PERIOD = 1.0
HINT_ROUNDS = 15
"""After so many looks at jobs none of which has started, say how to learn why."""
_SHOWN_FAILURES = 5
_NAMED = 3
"""Jobs that are written out where there may be thousands."""


async def wait_for(client: Client, jobs: Sequence[JobId], *, plain: bool) -> list[JobView]:
    """Show progress on stderr until all have ended; returns how, in the order of `jobs`.

    Cancelled (Ctrl-C), it says that the jobs go on.
    """
    console = wide_console(stderr=True)
    plain = plain or not console.is_terminal
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    bar = bars.add_task("jobs", total=len(jobs))
    views: dict[JobId, JobView] = {}
    said = ""
    rounds = 0
    with (
        _goes_on(console, jobs, views),
        nullcontext() if plain else Live(bars, console=console, refresh_per_second=4),
    ):
        while await _refresh(client, jobs, views):
            words = _words(views)
            bars.update(bar, completed=_ended(views), description=words)
            if plain and words != said:
                console.print(Text(f"{_ended(views)}/{len(jobs)} ended: {words}"))
                said = words
            rounds += 1
            if rounds == HINT_ROUNDS and all(map(_untouched, views.values())):
                hint = f"nothing has started yet → copilot job explain {jobs[0]}"
                console.print(Text(hint))
            await asyncio.sleep(PERIOD)
        bars.update(bar, completed=_ended(views), description=_words(views))
    failed = unsuccessful(views.values())
    console.print(Text(f"{len(jobs) - len(failed)} succeeded, {len(failed)} did not"))
    for view in failed[:_SHOWN_FAILURES]:
        console.print(Text(f"  {view.id} {view.state}: {printable(view.message)}"))
        console.print(Text(f"    → copilot job show {view.id}; copilot job logs {view.id}"))
    return [views[job] for job in jobs]


def unsuccessful(views: Iterable[JobView]) -> list[JobView]:
    return [view for view in views if view.state is not JobState.SUCCEEDED]


@contextmanager
def _goes_on(
    console: Console, jobs: Sequence[JobId], views: dict[JobId, JobView]
) -> Iterator[None]:
    """Somebody who stops watching is told that nothing else has stopped."""
    try:
        yield
    except asyncio.CancelledError:
        left = [job for job in jobs if job not in views or not views[job].state.final]
        names = " ".join(left) if len(left) <= _NAMED else f"{' '.join(left[:_NAMED])} …"
        what = "1 job goes on" if len(left) == 1 else f"{len(left)} jobs go on"
        console.print(Text(f"stopped watching; {what} → copilot job wait {names}"))
        console.print(Text(f"  (or, to stop them: copilot job cancel {names})"))
        raise


async def _refresh(client: Client, jobs: Sequence[JobId], views: dict[JobId, JobView]) -> bool:
    """Look at those not yet ended; whether any is left."""
    left = [job for job in jobs if job not in views or not views[job].state.final]
    for job in left:
        views[job] = await client.jobs.show(job)
    return any(not view.state.final for view in views.values())


def _untouched(view: JobView) -> bool:
    return view.state is JobState.WAITING and view.attempt == 0


def _ended(views: dict[JobId, JobView]) -> int:
    return sum(view.state.final for view in views.values())


def _words(views: dict[JobId, JobView]) -> str:
    counts = Counter(view.state for view in views.values())
    return ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])


async def fetch_all(client: Client, jobs: Sequence[JobId], directory: Path) -> int:
    """Fetch the outputs of all ended jobs into `directory/job-id/`; returns how many files."""
    console, files = wide_console(stderr=True), 0
    for job in jobs:
        view = await client.jobs.show(job)
        if outputs_expected(view):
            files += len(await client.files.fetch_outputs(view, directory))
    console.print(Text(f"fetched {counted(files, 'file')} into {directory}"))
    return files
