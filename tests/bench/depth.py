"""CPU per claim, from a thousand waiting jobs to a million, from one kind of job to a thousand.

A whole manager without its sockets, in this process: 64 pilots become hungry at once, and the
clock of the process (all its threads) runs from their frames to the frames with their offers.
Between two rounds, off the clock, the jobs are reported done and as many new ones submitted, so
that the depth stays what it is. The cases take turns, so that each meets the same machine; of each
the median round counts, because a checkpoint of the database hits one and not another.
"""

import gc
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from copilot_agent.protocol.frames import Held, ManagerFrame, Offer, PilotFrame, Report, Wants
from copilot_agent.protocol.job import STDERR, STDOUT, JobSpec, Outcome, Output, Phase
from job_manager_adapter.app import Manager
from job_manager_adapter.core.fleet import NOTHING
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.settings import load
from job_manager_adapter.views import Role, SubmitRequest
from tests.bench.filled import Bulk, fill
from tests.bench.frame import Frame
from tests.bench.results import Result, at_most

NAME = "depth"
DESCRIPTION = "CPU per claim at 10^3 and 10^6 waiting jobs, 1 and 1,000 requirement classes"
SECONDS = 300.0
MOST = 1.3
PATIENCE_SECONDS = 20.0
PILOTS, EXPERIMENT = 64, "demo"
HUNGRY = Wants(cores=4, memory_mib=8192, disk_mib=65536)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
LOGS = tuple(Output(name=name, sha256=EMPTY, size=0) for name in (STDOUT, STDERR))


@dataclass
class Talker:
    """A pilot that takes one round after the other."""

    session: PilotSession
    sequence: int = 0
    held: tuple[Offer, ...] = ()
    receipts: list[str] = field(default_factory=list)

    async def hear(self) -> ManagerFrame:
        answer = await self.session.next(PATIENCE_SECONDS)
        if answer is None:
            raise RuntimeError(f"the manager says nothing to {self.session.pilot}")
        return answer

    def frame(self, wants: Wants, phase: Phase | None = None) -> PilotFrame:
        self.sequence += 1
        kept, self.receipts = tuple(self.receipts), []
        reports: tuple[Report, ...] = ()
        if phase is Phase.REPORTING:
            reports = tuple(
                Report(
                    job=it.job, attempt=it.attempt, outcome=Outcome.SUCCEEDED, exit_code=0,
                    outputs=LOGS,
                )
                for it in self.held
            )  # fmt: skip
        return PilotFrame(
            session=self.session.number,
            sequence=self.sequence,
            wants=wants,
            holding=tuple(
                Held(job=it.job, attempt=it.attempt, phase=phase) for it in self.held if phase
            ),
            reports=reports,
            receipts_kept=kept,
        )


class Bench:
    def __init__(self, manager: Manager, bulk: Bulk) -> None:
        self.manager = manager
        self.bulk = bulk
        self.talkers: list[Talker] = []
        self.submitted = 0

    async def attach(self) -> None:
        for number in range(self.bulk.pilots):
            pilot = self.bulk.pilot(number)
            session = await self.manager.services.pilots.attach(pilot, "websocket")
            self.talkers.append(Talker(session))
            session.receive(self.talkers[-1].frame(NOTHING))
            await self.talkers[-1].hear()

    async def round(self) -> tuple[float, int]:
        """CPU seconds, and how many claims."""
        frames = [talker.frame(HUNGRY) for talker in self.talkers]
        began = time.process_time()
        for talker, frame in zip(self.talkers, frames, strict=True):
            talker.session.receive(frame)
        for talker in self.talkers:
            while not talker.held:
                talker.held = (await talker.hear()).offers
        used = max(time.process_time() - began, 1e-6)  # clocks of some kernels only tick
        count = sum(len(talker.held) for talker in self.talkers)
        await self._finish()
        await self._refill(count)
        return used, count

    async def _finish(self) -> None:
        for talker in self.talkers:
            talker.session.receive(talker.frame(NOTHING, Phase.REPORTING))
        for talker in self.talkers:
            while talker.held:
                answer = await talker.hear()
                talker.receipts += [receipt.statement.id for receipt in answer.receipts]
                done = {verdict.job for verdict in answer.verdicts}
                talker.held = tuple(it for it in talker.held if it.job not in done)
            talker.session.receive(talker.frame(NOTHING))

    async def _refill(self, count: int) -> None:
        numbers = range(self.submitted, self.submitted + count)
        self.submitted += count
        jobs = tuple(
            JobSpec(
                experiment=EXPERIMENT,
                command=("/usr/bin/generate", "--events", "1000", "--seed", "4711"),
                requirements=self.bulk.requirements(number % self.bulk.classes),
            )
            for number in numbers
        )
        owner = Principal("t-bench", Role.OPERATOR)
        await self.manager.services.jobs.submit(owner, SubmitRequest(jobs=jobs))


@asynccontextmanager
async def bench(root: Path, waiting: int, classes: int) -> AsyncIterator[Bench]:
    bulk = Bulk(EXPERIMENT, waiting=waiting, classes=classes, pilots=PILOTS)
    root.mkdir()
    settings = load(None, {"data_dir": str(root), "experiments": {EXPERIMENT: {}}})
    manager = Manager(settings)
    manager.files.base_url = "http://127.0.0.1:8470"
    await fill(settings.database, bulk)
    await manager.store.open()
    try:
        await manager.services.start()
        opened = Bench(manager, bulk)
        await opened.attach()
        await opened.round()
        yield opened
    finally:
        await manager.services.close()
        await manager.store.close()


async def run(frame: Frame) -> list[Result]:
    few, many = frame.pick((1000, 1_000_000), (100, 1000))
    kinds, rounds = frame.pick((1000, 60), (20, 2))
    cases = [(few, 1), (many, 1), (few, kinds), (many, kinds)]
    costs: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    async with AsyncExitStack() as stack:
        benches = []
        for waiting, classes in cases:
            root = frame.root / f"{waiting}-{classes}"
            benches.append(await stack.enter_async_context(bench(root, waiting, classes)))
            frame.say(f"{waiting} jobs of {classes} classes wait")
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            for case, opened in zip(cases, benches, strict=True):
                used, count = await opened.round()
                costs[case].append(1e6 * used / count)
        gc.unfreeze()
    return list(results({case: statistics.median(found) for case, found in costs.items()}))


def results(costs: dict[tuple[int, int], float]) -> Iterator[Result]:
    """The first case is the base."""
    base, *others = costs
    beside = f"{base[0]} waiting jobs of 1 class"
    yield Result(f"depth.{base[0]}-waiting-1-classes", costs[base], "us", cpu_us=costs[base])
    for waiting, classes in others:
        cost = costs[waiting, classes]
        name = f"depth.{waiting}-waiting-{classes}-classes"
        yield Result(name, cost / costs[base], "×", at_most(MOST), beside, 1.0, cost)
