"""Where a pilot's payloads run: sandbox, staging and disk, without processes or files moved.

A payload is a time and an exit code. Its attempt's directory, the spool and the pilot's key are
real files in a directory in memory, because the real code writes them.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from copilot_agent.core.events import Key
from copilot_agent.payload.payload import PayloadEnd
from copilot_agent.payload.runner import PayloadPlan
from copilot_agent.payload.staging import StageInError, StageOutError
from copilot_agent.protocol.frames import InputLink, OutputLink, Report
from copilot_agent.protocol.job import FailureClass, JobSpec, Output, Usage
from copilot_agent.spool import Spool
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Machine
from tests.simulation.session import PREFIX, SimulatedSession
from tests.simulation.steps import Step, Steps

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CPU_SHARE = 0.9


@dataclass(frozen=True)
class Run:
    """What a payload will do."""

    seconds: float
    exit_code: int


@dataclass
class Workplace:
    """One agent process's surroundings; `runs` is what its payloads still have before them."""

    machine: Machine
    host: str
    directory: Path
    steps: Steps
    ledger: Ledger
    runs: dict[Key, Run]


class SimulatedSpool(Spool):
    """The real one; reports come back in an order that does not hang on the disk's clock."""

    def reports(self) -> tuple[Report, ...]:
        return tuple(sorted(super().reports(), key=lambda report: (report.job, report.attempt)))


class SimulatedPayload:
    def __init__(self, place: Workplace, key: Key, run: Run) -> None:
        self._place = place
        self._key = key
        self._loop = place.machine.loop
        self._begin = self._loop.time()
        self._run = run
        self.started_at = place.machine.clock.time()
        self._end: asyncio.Future[PayloadEnd] = self._loop.create_future()
        self._timer = self._loop.call_later(run.seconds, self._exit)

    async def wait(self) -> PayloadEnd:
        return await asyncio.shield(self._end)

    async def kill(
        self, failure_class: FailureClass, message: str, *, grace_seconds: float = 5.0
    ) -> None:
        self._timer.cancel()
        self._loop.call_later(min(grace_seconds, 0.5), self._over, None, failure_class, message)
        await self.wait()

    def usage(self) -> Usage:
        wall = self._loop.time() - self._begin
        return Usage(wall_seconds=wall, cpu_seconds=CPU_SHARE * wall, peak_memory_bytes=1 << 20)

    def fraction(self) -> float | None:
        return None

    def log_tail(self, max_bytes: int = 4096) -> str:
        return ""

    @property
    def left(self) -> Run:
        return Run(self._run.seconds - (self._loop.time() - self._begin), self._run.exit_code)

    def _exit(self) -> None:
        code = self._run.exit_code
        failure = FailureClass.PAYLOAD if code else None
        self._over(code, failure, "the payload failed" if code else "")

    def _over(self, code: int | None, failure: FailureClass | None, message: str) -> None:
        if self._end.done():
            return
        place = self._place
        place.ledger.payload_ended(place.host, *self._key)
        place.runs.pop(self._key, None)
        signal = 15 if code is None else None
        self._end.set_result(
            PayloadEnd(
                exit_code=code,
                signal=signal,
                failure_class=failure,
                message=message,
                usage=self.usage(),
            )
        )
        place.steps.enter(Step.EXITED, self._key.job, place.host)


class SimulatedSandbox:
    def __init__(self, place: Workplace) -> None:
        self._place = place
        self.payloads: dict[Key, SimulatedPayload] = {}

    async def reclaim(self) -> list[str]:
        """Kills what an earlier agent of this VM left."""
        return [f"payload {job}/{n}" for job, n in self._place.ledger.reclaimed(self._place.host)]

    async def start(self, plan: PayloadPlan) -> Any:
        place, key = self._place, Key(plan.job, plan.attempt)
        await asyncio.sleep(0.01)
        run = place.runs.get(key) or _draw(place, plan.spec)
        place.runs[key] = run
        place.ledger.payload_started(place.host, *key)
        payload = self.payloads[key] = SimulatedPayload(place, key, run)
        place.steps.enter(Step.RUNNING, key.job, place.host)
        return payload


def _draw(place: Workplace, spec: JobSpec) -> Run:
    """The job says how long it takes and how often it fails, in its command."""
    seconds, failing = float(spec.command[1]), float(spec.command[2])
    chance = place.machine.universe.random
    return Run(seconds * chance.uniform(0.8, 1.2), 1 if chance.random() < failing else 0)


class SimulatedStageIn:
    def __init__(self, place: Workplace) -> None:
        self._place = place

    async def prepare(
        self,
        job: str,
        attempt: int,
        spec: JobSpec,
        inputs: Sequence[InputLink],
        on_progress: Any = None,
    ) -> Path:
        place = self._place
        place.steps.enter(Step.STAGE_IN, job, place.host)
        directory = place.directory / f"{job}.{attempt}"
        directory.mkdir(exist_ok=True)
        chance = place.machine.universe.random
        await asyncio.sleep(chance.uniform(0.05, 3.0))
        if chance.random() < 0.03:
            raise StageInError("the input is not to be had now", retryable=True)
        return directory


class SimulatedStageOut:
    def __init__(self, place: Workplace, session: SimulatedSession) -> None:
        self._place = place
        self._session = session

    async def upload(self, plan: PayloadPlan, links: Sequence[OutputLink]) -> tuple[Output, ...]:
        place = self._place
        chance = place.machine.universe.random
        half = chance.uniform(0.02, 1.0)
        await asyncio.sleep(half)
        place.steps.enter(Step.UPLOADING, plan.job, place.host)
        await asyncio.sleep(half)
        try:
            for link in links:
                await self._session.put(link.url.removeprefix(PREFIX))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StageOutError(f"upload: {error}", retryable=True) from error
        place.steps.enter(Step.UPLOADED, plan.job, place.host)
        return tuple(Output(name=link.name, sha256=EMPTY, size=0) for link in links)
