"""A real agent with real payloads against a small manager that does what the test says."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from copilot_agent.assembly import prepare
from copilot_agent.core.events import Key
from copilot_agent.payload.starter import Starter
from copilot_agent.probe import Given
from copilot_agent.protocol.frames import (
    ManagerFrame,
    Offer,
    OutputLink,
    PilotFrame,
    Report,
    Verdict,
    VerdictKind,
)
from copilot_agent.protocol.job import JobSpec, OutputFile
from copilot_agent.settings import Settings
from copilot_agent.standalone import run
from tests.unit.copilot_agent.core.scenes import job_id
from tests.unit.copilot_agent.transports.scripted import ScriptedManager

SECRET = "s" * 43
SECONDS = 20.0


class Bench:
    """One manager and at most one agent at a time."""

    def __init__(self, manager: ScriptedManager, state: Path, starter: Starter) -> None:
        self.manager = manager
        self.state = state
        self.session = 0
        self.starter = starter
        self._agent: asyncio.Task[int] | None = None

    def settings(self) -> Settings:
        return Settings(
            manager=self.manager.url,
            state=self.state,
            scratch=self.state / "scratch",
            given=Given(cores=2, memory_mib=1024, disk_mib=1024),
        )

    def start(self) -> "asyncio.Task[int]":
        settings = self.settings()
        self.state.mkdir(exist_ok=True)
        self._agent = asyncio.create_task(run(settings, SECRET, prepare(settings, self.starter)))
        return self._agent

    async def stop(self) -> None:
        """As if it were killed: nothing more is reported."""
        if self._agent is not None:
            self._agent.cancel()
            with suppress(asyncio.CancelledError):
                await self._agent

    async def attach(self) -> PilotFrame:
        """Answers the next attach; returns its frame."""
        frame = await self.until(lambda frame: frame.session is None)
        self.session += 1
        self.say()
        return frame

    def say(self, *, offers: tuple[Offer, ...] = (), verdicts: tuple[Verdict, ...] = ()) -> None:
        frame = ManagerFrame(
            session=self.session,
            server_time=1.0,
            offers=offers,
            verdicts=verdicts,
            policy=self.manager.policy,
        )
        self.manager.say(frame)

    async def until(self, wanted: Callable[[PilotFrame], bool]) -> PilotFrame:
        async with asyncio.timeout(SECONDS):
            while not wanted(frame := await self.manager.received.get()):
                pass
        return frame

    async def report(self, key: Key) -> Report:
        """Waits for the attempt's report, and accepts it."""
        frame = await self.until(lambda frame: any(_key(each) == key for each in frame.reports))
        accepted = Verdict(job=key.job, attempt=key.attempt, verdict=VerdictKind.ACCEPTED)
        self.say(verdicts=(accepted,))
        return next(each for each in frame.reports if _key(each) == key)

    def offer(self, number: int, script: str, *outputs: str, link: str = "1") -> Offer:
        """A shell script; its declared outputs and logs may be delivered by `link`."""
        spec = JobSpec(
            experiment="demo",
            command=("/bin/sh", "-c", script),
            outputs=tuple(OutputFile(name=name) for name in outputs),
        )
        job = job_id(number)
        links = tuple(
            OutputLink(
                name=name,
                url=f"{self.manager.url}/out/{number}.{name}?link={link}",
                max_bytes=1 << 20,
            )
            for name in ("stdout.log", "stderr.log", *outputs)
        )
        return Offer(job=job, attempt=1, spec=spec, lease_seconds=60, outputs=links)

    def output(self, number: int, name: str) -> bytes:
        return self.manager.files.outputs[f"{number}.{name}"]


def _key(report: Report) -> Key:
    return Key(report.job, report.attempt)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    logging.getLogger("copilot_agent").setLevel(logging.INFO)
    with Starter() as starter:
        async with ScriptedManager().running() as manager:
            bench = Bench(manager, tmp_path / "state", starter)
            yield bench
            await bench.stop()
