"""Runs the peers once per run of the command; what was found is kept for the other benches."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from deploy.demo.processes import Process, program
from tests.bench.frame import Frame
from tests.bench.peers.recipes import PROGRAMS, PYTHON, RECIPES, Recipe
from tests.bench.processes import cpu_seconds, descendants

FILE = "peers.json"
SECONDS = 90.0
"""For one peer, from the start of its server to the end of its last job."""

STOP_SECONDS = 2.0
"""Some workers wait much longer for jobs that will not come."""


@dataclass(frozen=True)
class Peer:
    key: str
    """Its name in one word."""
    name: str
    durable: bool
    """Whether a job that was acknowledged survives the computer's sudden end."""
    rate: float
    """Jobs per second, wall clock, from the first submission to the last job's end."""
    cpu_us: float
    """CPU microseconds per job of everything that was started: server, workers, submitter."""


async def measured(frame: Frame) -> tuple[Peer, ...]:
    """All peers; measured at the first call of a run. Empty in a quick run.

    One that fails is said to, and is not among them.
    """
    if frame.quick:
        return ()
    kept = _kept(frame)
    if kept is None:
        kept = tuple([peer for recipe in RECIPES if (peer := await _try(recipe, frame))])
        found = {"run": frame.run, "peers": [asdict(each) for each in kept]}
        (frame.out / FILE).write_text(json.dumps(found, indent=2) + "\n")
    return kept


async def best_durable(frame: Frame) -> Peer | None:
    """The fastest peer that keeps what it acknowledged; None in a quick run."""
    return max((p for p in await measured(frame) if p.durable), key=_rate, default=None)


async def best(frame: Frame) -> Peer | None:
    """The fastest of any; None in a quick run."""
    return max(await measured(frame), key=_rate, default=None)


def _rate(peer: Peer) -> float:
    return peer.rate


def _kept(frame: Frame) -> tuple[Peer, ...] | None:
    try:
        found = json.loads((frame.out / FILE).read_bytes())
    except FileNotFoundError:
        return None
    return tuple(Peer(**each) for each in found["peers"]) if found["run"] == frame.run else None


async def _try(recipe: Recipe, frame: Frame) -> Peer | None:
    try:
        return await measure(recipe, frame)
    except (CopilotError, OSError, RuntimeError, TimeoutError) as error:
        frame.say(f"{recipe.name} could not be measured: {error or 'it took too long'}")
        return None


async def measure(recipe: Recipe, frame: Frame) -> Peer:
    """Start a peer from nothing, send jobs through it, stop it. Raises as it fails."""
    root = frame.root / recipe.key
    root.mkdir(mode=0o711)
    async with asyncio.timeout(SECONDS), recipe.server(root) as server:
        environment = {"PEER_SERVER": server, "PYTHONPATH": str(PROGRAMS)}
        if recipe.prepare:
            await _to_end(recipe.prepare, root, environment)
        async with _workers(recipe, root, environment):
            rate, cpu = await _submit(recipe, root, environment)
    frame.say(f"{recipe.name}: {rate:.0f} jobs/s, {cpu:.0f} µs of CPU each")
    return Peer(recipe.key, recipe.name, recipe.durable, round(rate, 1), round(cpu, 1))


@asynccontextmanager
async def _workers(recipe: Recipe, root: Path, environment: dict[str, str]) -> AsyncIterator[None]:
    argv = _here(recipe.workers, root, environment)
    async with AsyncExitStack() as stack:
        for number in range(recipe.processes):
            running = program("workers", argv, root / f"workers-{number}.log")
            process = await stack.enter_async_context(running)
            stack.push_async_callback(process.stop, STOP_SECONDS)
        yield


async def _submit(recipe: Recipe, root: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Jobs per second and CPU microseconds per job."""
    words = (PYTHON, str(PROGRAMS / f"{recipe.key}_peer.py"), "submit", str(recipe.jobs))
    argv = _here(words, root, environment)
    async with program("submit", argv, root / "submit.log") as process:
        await _said(process, "begin")
        before = cpu_seconds(descendants(os.getpid()))
        _, jobs, seconds = (await _said(process, "end")).split()
        used = cpu_seconds(descendants(os.getpid())) - before
    return int(jobs) / float(seconds), used / int(jobs) * 1e6


def _here(argv: Sequence[str], root: Path, environment: dict[str, str]) -> tuple[str, ...]:
    settings = (f"{name}={value}" for name, value in environment.items())
    return ("env", f"--chdir={root}", *settings, *argv)


async def _to_end(argv: Sequence[str], root: Path, environment: dict[str, str]) -> None:
    async with program("prepare", _here(argv, root, environment), root / "prepare.log") as process:
        if await process.wait():
            raise RuntimeError(f"{argv} failed: {process.last_words()}")


async def _said(process: Process, word: str) -> str:
    """The line that begins with `word`, once the process has written it."""
    while True:
        for line in process.log.read_text().splitlines():
            if line.startswith(word):
                return line
        process.check()
        await asyncio.sleep(0.02)
