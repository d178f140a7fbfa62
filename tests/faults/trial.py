"""One cell, from the first process to the verdict of the checker."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import checker
from tests.faults.jobs import SCHEDULED
from tests.faults.matrix import SHORT, Cell, Fault
from tests.faults.steps import Step, Stop, Subject, stop_at
from tests.faults.strikes import Strike
from tests.faults.world import BOOT_SECONDS, World, world
from tests.harness import programs

STEP_SECONDS = 30.0
SERVING_SECONDS = 5.0
"""From the start of a manager's process to its first answer: what the product promises."""
SLOW_SECONDS = 3.0
"""Given to a busy computer, wherever real time is compared with what was promised."""
BYSTANDERS = 2
LATE_SECONDS = 30.0
DONE = {Step.COMMITTED, Step.TOLD, Step.CREDITED}
"""Steps after which nothing of the job may be done again."""
FILL = "i=0; while :; do dd if=/dev/zero of=$i bs=1M count=4; i=$((i+1)); done"
LASTS = "sleep 5"


@dataclass
class Result:
    """Of one cell, as it is written to faults.json."""

    cell: str
    seed: int
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    serving_seconds: list[float] = field(default_factory=list)
    """Of each start of a manager after a fault."""
    offered_again_seconds: list[float] = field(default_factory=list)
    """From the fault (or since there was a pilot) to the next lease of each lost attempt."""
    attempts: list[int] = field(default_factory=list)
    """Of each job, in the order of their submission."""
    detail: str = ""

    @property
    def good(self) -> bool:
        return not self.violations


@dataclass
class Trial:
    cell: Cell
    world: World
    result: Result
    subject: Subject
    stop: Stop
    began_at: float = field(default_factory=time.time)
    lasted: float = 0.0
    """How long the fault was, in real seconds."""

    async def run(self) -> None:
        """Raises whatever goes wrong on the way; what the checker finds is in the result."""
        await self._reach()
        struck_at = time.time()
        chance = random.Random(f"{self.result.seed} {self.cell.name}")  # noqa: S311 - replayed
        strike = Strike(self.cell, self.world, self.subject.job, chance)
        self.result.serving_seconds = strike.serving_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit_meanwhile())
            await strike.run()
            self.lasted = time.time() - struck_at
        self.result.detail = ", ".join(strike.detail)
        await self._recover()
        await self._judge(max(struck_at, strike.room_at - self.cell.clockwork.lease))

    async def _reach(self) -> None:
        """The world stands still at the cell's step afterwards, but for step 5."""
        pilots = self.world.agents or self.world.host
        if self.world.host is not None:
            await self.world.host.idle(seconds=BOOT_SECONDS)
        if self.stop.trap is not None:
            self.world.link.set_trap(self.stop.trap)
        await self._submit()
        for _ in range(BYSTANDERS):
            await self.world.ledger.submit(self.world.client, self.world.ledger.specification())
        if not pilots:
            await self.world.start_pilot()
        async with asyncio.timeout(BOOT_SECONDS if self.cell.in_a_vm else STEP_SECONDS):
            await self._there()

    async def _submit(self) -> None:
        """The subject; in step 11 that is a job of the experiment's own scheduler."""
        ledger = self.world.ledger
        if self.cell.step is Step.TOLD:
            name = await self._scheduled()
        else:
            first = FILL if self.cell.fault is Fault.DISKFULL and self.cell.in_a_vm else ""
            first = first or (LASTS if self.stop.running and self.cell.in_a_vm else "")
            name = self.subject.job = await ledger.subject(
                self.world.client, self.subject.name, waits=self.stop.running, first=first
            )
        self.world.arm(self.stop.points, name)

    async def _scheduled(self) -> str:
        """The first one is there from the beginning; a pilot that comes later needs another."""
        ledger = self.world.ledger
        if self.world.host is None:
            return ledger.upstream[0]
        return await ledger.schedule(self.world.scheduler)

    async def _there(self) -> None:
        if self.stop.trap is not None:
            await self.world.link.reached()
        elif self.stop.points:
            await self.world.at_point(self.stop.points)
            self.world.link.freeze()
        else:
            await programs.eventually(self._runs, BOOT_SECONDS, "the payload to run")

    async def _runs(self) -> bool:
        ledger = self.world.ledger
        begun = ledger.in_a_vm or any(line.job == self.subject.job for line in ledger.lines())
        return begun and (await self.world.client.jobs.show(self.subject.job)).state == "running"

    async def _submit_meanwhile(self) -> None:
        """Until it is answered, which may be after the fault."""
        ledger = self.world.ledger
        await ledger.submit(self.world.client, ledger.specification("meanwhile"))

    async def _recover(self) -> None:
        """The work goes on, and new work is taken."""
        ledger, client = self.world.ledger, self.world.client
        ledger.go.touch()
        if self.cell.two_managers:
            await checker.ended(client, ledger)  # at the one that is left
            await self.world.manager.start()
        elif self.cell.fault is Fault.GONE:  # its volunteer comes home
            await self.world.agents[0].start()
        if len(self.world.agents) > 1:
            await self._late_report()
        ledger.again.touch()
        await ledger.submit(client, ledger.specification())

    async def _late_report(self) -> None:
        """Of the first pilot, which was given up: it comes while the next attempt runs."""
        key = (self.subject.job, 1)

        def judged() -> bool:
            said = self.world.link.said
            return said is not None and key not in {(one.job, one.attempt) for one in said.holding}

        await programs.eventually(judged, LATE_SECONDS, "a verdict on the late report")

    async def _judge(self, since: float) -> None:
        """`since`: the fault, or a lease's length before somebody could take over."""
        world = self.world
        evidence = await checker.gather(world.client, world.ledger, world.receipt_files)
        own = [job for job in evidence.jobs if job.submitted_at.timestamp() > self.began_at]
        self.result.attempts = [len(job.attempts) for job in own]
        found = checker.violations(evidence, world.ledger)
        found += await checker.of_scheduler(world.scheduler, world.ledger)
        # what was lost before is of an earlier cell in the same world
        lost = [each for each in checker.takeovers(evidence) if each.at.timestamp() >= since]
        found += self._of_takeovers(lost, since)
        if self.cell.step in DONE:
            subject = self.subject.job or next(
                job.id for job in reversed(own) if job.experiment == SCHEDULED
            )
            tries = [len(job.attempts) for job in own if job.id == subject]
            found += [f"done again although it was committed: {subject}"] * (tries != [1])
        slow = [one for one in self.result.serving_seconds if one > SERVING_SECONDS + SLOW_SECONDS]
        found += [f"served only {one} s after its start" for one in slow]
        self.result.violations += found

    def _of_takeovers(self, lost: Sequence[checker.Takeover], since: float) -> list[str]:
        found, clockwork = [], self.cell.clockwork
        for each in lost:
            word = self.world.link.named.get((each.job, each.attempt), 0.0)
            waited = each.at.timestamp() - max(since, each.leased_at.timestamp(), word)
            self.result.offered_again_seconds.append(round(waited, 3))
            if waited > clockwork.lease + clockwork.grace + SLOW_SECONDS:
                found.append(f"offered again after {waited:.1f} s: {each.job}")
            short = self.cell.fault in SHORT and self.lasted < clockwork.lease / 2
            if short and not self.cell.in_a_vm:  # there all is slow, without acceleration
                found.append(f"lost in a fault of {self.lasted:.1f} s: {each.job}")
        return found


Tell = Callable[[Result], None]


async def run(series: Sequence[Cell], seed: int, directory: Path, tell: Tell) -> list[Result]:
    """Cells that share a world, one after the other; a new world after one that was bad.

    Never raises for what the product does wrong; then its directory is left behind.
    """
    left, results = list(series), list[Result]()
    while left:
        root, before = directory / f"{left[0].name}.d", len(results)
        try:
            async with world(root, left[0]) as made:
                while left and all(one.good for one in results[before:]):
                    results.append(await _one(left.pop(0), seed, made))
                    tell(results[-1])
        except Exception as error:  # noqa: BLE001 - told as the cell's result
            if len(results) == before:
                results.append(Result(left.pop(0).name, seed))
            results[-1].violations.append(_in_words(error))
            tell(results[-1])
        if results[-1].good:
            shutil.rmtree(root)
    return results


async def _one(cell: Cell, seed: int, made: World) -> Result:
    result, began = Result(cell.name, seed), asyncio.get_running_loop().time()
    subject = Subject(cell.name)
    try:
        await Trial(cell, made, result, subject, stop_at(cell.step, subject)).run()
    except Exception as error:  # noqa: BLE001 - one cell's trouble does not end the others
        result.violations.append(_in_words(error))
    result.seconds = round(asyncio.get_running_loop().time() - began, 1)
    return result


def _in_words(error: BaseException) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_in_words(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
