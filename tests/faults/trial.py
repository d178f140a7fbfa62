"""One cell, from the first process to the verdict of the checker."""

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.processes import Process
from tests.faults import checker
from tests.faults.matrix import (
    GRACE_SECONDS,
    LEASE_SECONDS,
    LONG,
    SECONDS,
    Cell,
    Fault,
    Victim,
)
from tests.faults.steps import Step, Stop, stop_at
from tests.faults.wire import Way
from tests.faults.world import World, send, world
from tests.harness import programs
from tests.harness.programs import AgentProgram

STEP_SECONDS = 30.0
SERVING_SECONDS = 5.0
"""From the start of a manager's process to its first answer: what the product promises."""
SLOW_SECONDS = 3.0
"""Given to a busy computer, wherever real time is compared with what was promised."""
BYSTANDERS = 2


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
    """From the fault (or the end of what held up every pilot) to the next lease of a lost job."""
    detail: str = ""

    @property
    def good(self) -> bool:
        return not self.violations


@dataclass
class Trial:
    cell: Cell
    world: World
    chance: random.Random
    result: Result
    stop: Stop
    struck_at: float = 0.0
    """Unix time, like the manager's."""
    room_at: float = 0.0
    """Since when there has been a pilot for what the fault has taken away."""

    # ----- up to the step

    async def reach(self) -> None:
        """The world stands still at the cell's step afterwards, but for step 5."""
        ledger, client = self.world.ledger, self.world.client
        subject = ledger.upstream
        if self.cell.step is not Step.TOLD:
            subject = await ledger.subject_with_input(client, waits=self.stop.running)
        if self.stop.point is not None:
            self.world.arm(self.stop.point, subject)
        for _ in range(BYSTANDERS):
            await ledger.submit(client, ledger.specification())
        if self.stop.trap is not None:
            self.world.link.set_trap(self.stop.trap)
        agent = await self.world.add_agent()
        await agent.start()
        async with asyncio.timeout(STEP_SECONDS):
            await self._there()

    async def _there(self) -> None:
        if self.stop.trap is not None:
            await self.world.link.reached()
        elif self.stop.point is not None:
            await self.world.at_point(self.stop.point)
            self.world.link.freeze()
        else:
            await programs.eventually(self._runs, STEP_SECONDS, "the payload to run")

    async def _runs(self) -> bool:
        job = self.world.ledger.subject
        begun = any(line.job == job for line in self.world.ledger.lines())
        return begun and (await self.world.client.jobs.show(job)).state == "running"

    # ----- the fault

    async def strike(self) -> None:
        self.struck_at = time.time()
        match self.cell.fault:
            case Fault.KILL:
                await self._kill()
            case Fault.GONE:
                await self._gone()
            case Fault.STOP60S | Fault.STOP10MIN:
                await self._pause()
            case Fault.DISKFULL:
                await self._fill()
            case _:
                await self._part()

    async def _kill(self) -> None:
        match self.cell.victim:
            case Victim.PAYLOAD:
                programs.kill(self._payload())
            case Victim.AGENT:
                await self._agent.kill()
                self._release()
                await self._agent.start()
            case Victim.MANAGER:
                await self.world.manager.kill()
                self._release()
                await self._manager_starts()
            case _:
                raise NotImplementedError(self.cell.name)
        self.room_at = time.time()

    async def _gone(self) -> None:
        await self._agent.kill()
        self._release()
        await self._substitute()

    async def _pause(self) -> None:
        """What was on the wire goes on to whoever is awake."""
        seconds = SECONDS[self.cell.fault]
        pid = self._victim_pid()
        os.kill(pid, signal.SIGSTOP)
        self._release(cut=False, spare=self.cell.victim)
        await self._meanwhile(seconds)
        os.kill(pid, signal.SIGCONT)

    async def _part(self) -> None:
        link = self.world.link
        ways = {Fault.PART10MIN_UP: (Way.UP,), Fault.PART10MIN_DOWN: (Way.DOWN,)}
        link.go_on()
        link.freeze(*ways.get(self.cell.fault, ()))
        send(self.world.manager.process, signal.SIGCONT)
        await self._meanwhile(SECONDS[self.cell.fault])
        if self.cell.fault in LONG and self.chance.random() < 0.5:
            self.result.detail += " then reset"
            link.cut()
        else:
            link.go_on()

    async def _fill(self) -> None:
        raise NotImplementedError(self.cell.name)

    async def _meanwhile(self, seconds: float) -> None:
        """A substitute comes if the fault outlasts a lease."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(seconds))
            if self.cell.fault in LONG and self.cell.victim in (Victim.AGENT, Victim.LINK):
                group.create_task(self._substitute())
        self.room_at = self.room_at or time.time()

    async def _substitute(self) -> None:
        agent = await self.world.add_agent()
        await agent.start()

        async def attached() -> bool:
            pilots = (await self.world.client.pilots.list()).items
            return len(pilots) == len(self.world.agents)

        await programs.eventually(attached, STEP_SECONDS, "the second pilot")
        self.room_at = time.time()

    def _release(self, *, cut: bool | None = None, spare: Victim | None = None) -> None:
        """Ends the standstill: what was on the wire arrives late, or never."""
        if cut is None:
            cut = self.chance.random() < 0.5
        self.result.detail += " lost on the wire" if cut else " arrives late"
        if cut:
            self.world.link.cut()
        else:
            self.world.link.go_on()
        if spare is not Victim.MANAGER:
            send(self.world.manager.process, signal.SIGCONT)

    @property
    def _agent(self) -> AgentProgram:
        return self.world.agents[0]

    def _payload(self) -> int:
        job = self.world.ledger.subject
        return [line.pid for line in self.world.ledger.lines() if line.job == job][-1]

    def _victim_pid(self) -> int:
        match self.cell.victim:
            case Victim.PAYLOAD:
                return self._payload()
            case Victim.AGENT:
                return _pid(self._agent.process)
            case Victim.MANAGER:
                return _pid(self.world.manager.process)
            case _:
                raise NotImplementedError(self.cell.name)

    async def _manager_starts(self) -> None:
        """Measured until it answers a question about a job."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.world.manager.start()
        await self.world.client.jobs.counts()
        self.result.serving_seconds.append(round(loop.time() - began, 3))

    # ----- after it

    async def recover(self) -> None:
        """The work goes on, and new work is taken."""
        ledger, client = self.world.ledger, self.world.client
        ledger.go.touch()
        await ledger.submit(client, ledger.specification())

    async def judge(self) -> None:
        world = self.world
        receipts = [agent.state / "receipts.jsonl" for agent in world.agents]
        evidence = await checker.gather(world.client, world.ledger, receipts)
        found = checker.violations(evidence, world.ledger)
        found += await checker.of_scheduler(world.scheduler, world.ledger)
        found += self._of_takeovers(evidence)
        slow = [one for one in self.result.serving_seconds if one > SERVING_SECONDS + SLOW_SECONDS]
        found += [f"served only {one} s after its start" for one in slow]
        self.result.violations += found

    def _of_takeovers(self, evidence: checker.Evidence) -> list[str]:
        found = []
        for each in checker.takeovers(evidence):
            waited = each.at.timestamp() - max(self.struck_at, self.room_at - LEASE_SECONDS)
            self.result.offered_again_seconds.append(round(waited, 3))
            if waited > LEASE_SECONDS + GRACE_SECONDS + SLOW_SECONDS:
                found.append(f"offered again after {waited:.1f} s: {each.job}")
        return found


def _in_words(error: BaseException) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_in_words(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


def _pid(process: Process | None) -> int:
    if process is None:
        raise RuntimeError("the victim was not started")
    return process.pid


async def run(cell: Cell, seed: int, directory: Path) -> Result:
    """Never raises for what the product does wrong; its directory is left behind if it did."""
    result = Result(cell.name, seed)
    root = directory / cell.name
    began = asyncio.get_running_loop().time()
    try:
        async with _trial(cell, seed, root, result) as trial:
            await trial.reach()
            await trial.strike()
            await trial.recover()
            await trial.judge()
    except Exception as error:  # noqa: BLE001 - one cell's trouble does not end the others
        result.violations.append(_in_words(error))
    result.seconds = round(asyncio.get_running_loop().time() - began, 1)
    if result.good:
        shutil.rmtree(root)
    return result


@asynccontextmanager
async def _trial(cell: Cell, seed: int, root: Path, result: Result) -> AsyncIterator[Trial]:
    chance = random.Random(f"{seed} {cell.name}")  # noqa: S311 - to be repeated
    async with world(root) as made:
        stop = stop_at(cell.step, lambda: made.ledger.subject)
        yield Trial(cell, made, chance, result, stop)
