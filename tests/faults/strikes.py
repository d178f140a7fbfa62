"""How each fault is done to its victim, while the world stands still at a step."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.processes import Process
from job_manager_adapter.client.http import ApiError
from tests.faults.database import Database
from tests.faults.matrix import LONG, Cell, Fault, Victim
from tests.faults.wire import Way
from tests.faults.world import BOOT_SECONDS, World, send
from tests.harness import programs, vm

ATTACH_SECONDS = 120.0
FULL_SECONDS = 3.0
WAYS = {Fault.PART10MIN_UP: (Way.UP,), Fault.PART10MIN_DOWN: (Way.DOWN,)}


@dataclass
class Strike:
    cell: Cell
    world: World
    job: str
    """The subject."""
    chance: random.Random
    detail: list[str] = field(default_factory=list)
    """What chance has chosen."""
    serving_seconds: list[float] = field(default_factory=list)
    room_at: float = 0.0
    """Unix time since when there has been a pilot for what the fault has taken away."""

    async def run(self) -> None:
        await self._how()()
        self.room_at = self.room_at or time.time()

    def _how(self) -> Callable[[], Awaitable[None]]:
        match self.cell.fault:
            case Fault.KILL:
                return self._kill
            case Fault.GONE:
                return self._gone
            case Fault.STOP60S | Fault.STOP10MIN:
                return self._stop
            case Fault.DISKFULL:
                return self._fill
            case Fault.AWAY30S:
                return self._away
            case _:
                return self._part

    # ----- kill

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
            case Victim.VM:
                boots = self._host.status.boots
                programs.kill(self._host.hypervisor())
                self._release()
                await self._host.idle(after_boot=boots, seconds=BOOT_SECONDS)
            case Victim.LAUNCHER:
                hypervisor = self._host.hypervisor()
                await self._host.kill()
                await programs.eventually(lambda: not programs.alive(hypervisor), 5, "VM's end")
                self._release()
                await self._host.start()
                await self._host.idle(seconds=BOOT_SECONDS)
            case Victim.DATABASE:
                await self._database.kill()
                self._release(cut=False)
                await self._database_starts()
            case _:
                raise NotImplementedError(self.cell.name)

    async def _gone(self) -> None:
        if self.cell.two_managers:
            await self.world.manager.kill()
            self.world.link.lead_to(self.world.observed.port)
            self._release()
            return
        await self._agent.kill()
        self._release()
        await self._substitute()

    async def _manager_starts(self) -> None:
        """Measured until it answers a question about jobs."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.world.manager.start()
        await self.world.client.jobs.counts()
        self.serving_seconds.append(round(loop.time() - began, 3))

    async def _database_starts(self) -> None:
        """Measured until the manager answers with what is in it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._database.begin()
        await programs.eventually(self._answers, ATTACH_SECONDS, "an answer from the database")
        self.serving_seconds.append(round(loop.time() - began, 3))

    async def _answers(self) -> bool:
        try:
            await self.world.client.jobs.counts()
        except ApiError:
            return False
        return True

    async def _away(self) -> None:
        """Shut down as its operator does it, started again later."""
        await asyncio.to_thread(self._database.stop)
        self._release(cut=False)
        await asyncio.sleep(self.cell.clockwork.fault)  # the fault itself
        await self._database_starts()

    # ----- stop, and part

    async def _stop(self) -> None:
        """What was on the wire goes on to whoever is awake."""
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self._release(cut=False)
        await self._meanwhile()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    async def _part(self) -> None:
        link = self.world.link
        link.go_on()
        link.freeze(*WAYS.get(self.cell.fault, ()))
        self._wake_manager()
        await self._meanwhile()
        if self.cell.fault in LONG and self.chance.random() < 0.5:
            self.detail.append("then reset")
            link.cut()
        else:
            link.go_on()

    async def _meanwhile(self) -> None:
        """A substitute comes if the fault outlasts a lease."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(self.cell.clockwork.fault))  # the fault itself
            if self.cell.fault in LONG and self.cell.victim in (Victim.AGENT, Victim.LINK):
                group.create_task(self._substitute())

    async def _substitute(self) -> None:
        await self.world.start_pilot()

        async def attached() -> bool:
            pilots = (await self.world.client.pilots.list()).items
            return len(pilots) == len(self.world.agents)

        await programs.eventually(attached, ATTACH_SECONDS, "the second pilot")
        self.room_at = time.time()

    # ----- a full disk

    async def _fill(self) -> None:
        """Until nothing more can be written; for a while."""
        if self.cell.victim is Victim.VM:
            return  # the payload itself does it
        filler = self._full_directory() / "filler"
        await asyncio.to_thread(_fill, filler)
        self.world.ledger.go.touch()  # a payload that waits has something to write
        self.world.ledger.again.touch()
        self._release(cut=False)
        await asyncio.sleep(FULL_SECONDS)  # the fault itself
        filler.unlink()

    def _full_directory(self) -> Path:
        if self.cell.victim is Victim.MANAGER:
            return self.world.manager.data
        return self._agent.state

    # ----- who and what

    def _release(self, *, cut: bool | None = None) -> None:
        """Ends the standstill: what was on the wire arrives late, or never."""
        if cut is None:
            cut = self.chance.random() < 0.5
        self.detail.append("lost on the wire" if cut else "arrives late")
        if cut:
            self.world.link.cut()
        else:
            self.world.link.go_on()
        self._wake_manager()

    def _wake_manager(self) -> None:
        """It may have stopped itself at a point."""
        if self.cell.victim is not Victim.MANAGER or self.cell.fault is Fault.DISKFULL:
            send(self.world.manager.process, signal.SIGCONT)

    def _pids(self) -> list[int]:
        match self.cell.victim:
            case Victim.PAYLOAD:
                return [self._payload()]
            case Victim.AGENT:
                return [_pid(self._agent.process)]
            case Victim.MANAGER:
                return [_pid(self.world.manager.process)]
            case Victim.DATABASE:
                return self._database.pids()
            case Victim.VM:
                return [self._host.hypervisor()]
            case Victim.LAUNCHER:
                return [_pid(self._host.process)]
            case _:
                raise NotImplementedError(self.cell.name)

    @property
    def _agent(self) -> programs.AgentProgram:
        return self.world.agents[0]

    @property
    def _database(self) -> Database:
        if self.world.database is None:
            raise RuntimeError("the database is a file of the manager's")
        return self.world.database

    @property
    def _host(self) -> vm.VmProgram:
        if self.world.host is None:
            raise RuntimeError("there is no VM")
        return self.world.host

    def _payload(self) -> int:
        return [line.pid for line in self.world.ledger.lines() if line.job == self.job][-1]


def _pid(process: Process | None) -> int:
    if process is None:
        raise RuntimeError("the victim was not started")
    return process.pid


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
