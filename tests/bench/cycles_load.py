"""Whole job cycles on managers that run already: simulated pilots and a busy experiment."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import aiohttp

from tests.bench.pilots import Pilots, pilots, secrets
from tests.bench.processes import cpu_seconds, tree
from tests.harness import programs

WARM_UP_SECONDS = 1.5
AHEAD = 3000
"""Jobs that are submitted before their turn, at most."""
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Load:
    count: int = 64
    window: int = 1
    carrier: Literal["websocket", "poll", "xmpp"] = "websocket"
    authority: str = ""
    batch: int = 100
    """Jobs in one submission."""
    submitters: int = 8
    """Connections that submit at the same time."""
    seconds: float = 10.0


@dataclass(frozen=True)
class Figures:
    cycles: int
    per_second: float
    manager_us: float
    """CPU of the managers, and of the database's processes, for each cycle."""
    pilots_us: float
    """CPU of the simulated pilots."""


def job(number: int) -> dict[str, object]:
    """One that differs from the others, as real ones do."""
    return {
        "experiment": programs.EXPERIMENT,
        "command": ["/usr/bin/simulate", "--seed", str(number)],
        "requirements": {"memory_mib": 64, "disk_mib": 64},
    }


class Experiment:
    """Keeps `AHEAD` jobs waiting."""

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str], load: Load) -> None:
        self._http = http
        self._urls = urls
        self._load = load
        self._submitted = 0
        self._done = 0
        self._progress = asyncio.Event()

    def done(self, cycles: int) -> None:
        self._done = cycles
        self._progress.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._load.submitters):
                group.create_task(self._submit(self._urls[number % len(self._urls)]))

    async def _submit(self, url: str) -> None:
        while True:
            while self._submitted - self._done >= AHEAD:
                self._progress.clear()
                await self._progress.wait()
            first, self._submitted = self._submitted, self._submitted + self._load.batch
            body = json.dumps({"jobs": [job(first + each) for each in range(self._load.batch)]})
            async with self._http.post(f"{url}/api/v1/jobs", data=body) as reply:
                if reply.status != 201:
                    raise RuntimeError(f"a submission got {reply.status}: {await reply.text()}")


@asynccontextmanager
async def busy(
    managers: Sequence[programs.ManagerProgram], load: Load
) -> AsyncIterator[tuple[Pilots, Experiment]]:
    """Attached pilots, and an experiment that submits as long as the block lasts."""
    urls = [manager.url for manager in managers]
    token = await managers[0].user_token("experiment", programs.EXPERIMENT)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        pilots(
            urls,
            await secrets(managers[0], load.count),
            count=load.count,
            window=load.window,
            carrier=load.carrier,
            authority=load.authority,
        ) as fleet,
    ):
        experiment = Experiment(http, urls, load)
        async with asyncio.TaskGroup() as group:
            submitting = group.create_task(experiment.run())
            watching = group.create_task(_watch(fleet, experiment))
            try:
                yield fleet, experiment
            finally:
                submitting.cancel()
                watching.cancel()


async def _watch(fleet: Pilots, experiment: Experiment) -> None:
    while True:
        experiment.done((await fleet.read()).cycles)
        await asyncio.sleep(LOOK_SECONDS)


async def measure(
    managers: Sequence[programs.ManagerProgram], load: Load, also: Sequence[int] = ()
) -> Figures:
    """`also`: processes (with their children) whose CPU counts with the managers'."""
    mains = [process.pid for manager in managers if (process := manager.process)]
    async with busy(managers, load) as (fleet, _):
        await asyncio.sleep(WARM_UP_SECONDS)
        pids = [pid for main in (*mains, *also) for pid in tree(main)]
        before, cpu = await fleet.read(), cpu_seconds(pids)
        await asyncio.sleep(load.seconds)
        after, cpu = await fleet.read(), cpu_seconds(pids) - cpu
    if after.refused or after.closed:
        raise RuntimeError(f"{after.refused} pilots were refused something, {after.closed} closed")
    cycles = after.cycles - before.cycles
    pilots_cpu = after.cpu_seconds - before.cpu_seconds
    return Figures(
        cycles=cycles,
        per_second=cycles / (after.at - before.at),
        manager_us=1e6 * cpu / max(cycles, 1),
        pilots_us=1e6 * pilots_cpu / max(cycles, 1),
    )
