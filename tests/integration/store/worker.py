"""A pilot that takes jobs and reports them done, and goes to another manager when one is away."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from copilot_agent.protocol.frames import (
    CommandKind,
    Held,
    ManagerFrame,
    Report,
    VerdictKind,
    Wants,
)
from copilot_agent.protocol.job import STDERR, STDOUT, Outcome, Output, Phase, Usage
from tests.integration.manager.pilot import FakePilot

EMPTY = hashlib.sha256(b"").hexdigest()
OUTPUTS = tuple(Output(name=name, sha256=EMPTY, size=0) for name in (STDOUT, STDERR))
Key = tuple[str, int]


@dataclass
class Worker:
    urls: Sequence[str]
    pilot: FakePilot
    run_seconds: float = 0.0
    held: dict[Key, float] = field(default_factory=dict)
    """Attempts that run, and until when."""
    reports: dict[Key, Report] = field(default_factory=dict)
    accepted: Counter[Key] = field(default_factory=Counter)
    refused: list[Key] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    """Job by receipt."""
    commands: list[tuple[CommandKind, str | None]] = field(default_factory=list)
    attached: int = -1
    """Index of the manager that it is attached to."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _done: list[str] = field(default_factory=list)
    _kept: list[str] = field(default_factory=list)

    async def run(self, first: int = 0) -> None:
        """Until cancelled; after each loss of the connection it tries the next manager."""
        turn = first
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._attached_to(turn % len(self.urls))
            self.attached = -1
            self.changed.set()
            await asyncio.sleep(0.1)
            turn += 1

    async def _attached_to(self, index: int) -> None:
        async with aiohttp.ClientSession(self.urls[index]) as http:
            self.pilot.http = http
            self.pilot.session, self.pilot.sequence = None, 0
            async with self.pilot.connect() as socket:
                self.attached = index
                self.changed.set()
                heartbeats = asyncio.create_task(self._beat(socket))
                try:
                    async for message in socket:
                        frame = ManagerFrame.model_validate_json(message.data)
                        self.pilot.session = frame.session
                        self._heard(frame)
                        await self._say(socket)
                finally:
                    heartbeats.cancel()

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while True:
                await self._say(socket)
                await asyncio.sleep(0.25)

    def _heard(self, frame: ManagerFrame) -> None:
        now = asyncio.get_running_loop().time()
        for offer in frame.offers:
            key = (offer.job, offer.attempt)
            if key not in self.reports and key not in self.accepted:
                self.held.setdefault(key, now + self.run_seconds)
        for verdict in frame.verdicts:
            key = (verdict.job, verdict.attempt)
            if self.reports.pop(key, None) is None:
                continue
            if verdict.verdict is VerdictKind.ACCEPTED:
                self.accepted[key] += 1
            else:
                self.refused.append(key)
        for command in frame.commands:
            self.commands.append((command.kind, command.job))
            self._done.append(command.id)
            if command.job and command.attempt:
                self.held.pop((command.job, command.attempt), None)
        for receipt in frame.receipts:
            self.receipts[receipt.statement.id] = receipt.statement.job
            self._kept.append(receipt.statement.id)
        self.changed.set()

    async def _say(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        now = asyncio.get_running_loop().time()
        for key in [key for key, until in self.held.items() if until <= now]:
            del self.held[key]
            self.reports[key] = Report(
                job=key[0],
                attempt=key[1],
                outcome=Outcome.SUCCEEDED,
                exit_code=0,
                usage=Usage(wall_seconds=1.0, cpu_seconds=0.5),
                outputs=OUTPUTS,
            )
        self.changed.set()
        holding = [Held(job=job, attempt=n, phase=Phase.RUNNING) for job, n in self.held]
        holding += [Held(job=job, attempt=n, phase=Phase.REPORTING) for job, n in self.reports]
        done, self._done = tuple(self._done[:100]), self._done[100:]
        kept, self._kept = tuple(self._kept[:100]), self._kept[100:]
        await self.pilot.say(
            socket,
            holding=tuple(holding),
            reports=tuple(self.reports.values()),
            wants=Wants(cores=2, memory_mib=1024, disk_mib=1024, window=2),
            commands_done=done,
            receipts_kept=kept,
        )

    async def until(self, what: str, true: object, seconds: float = 20.0) -> None:
        """Waits for a change after which `true()` is true."""
        assert callable(true)
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within {seconds} s") from None


@asynccontextmanager
async def worker(
    urls: Sequence[str], secret: str, first: int = 0, run_seconds: float = 0.0
) -> AsyncIterator[Worker]:
    async with aiohttp.ClientSession(urls[first]) as http:
        pilot = FakePilot(http)
        await pilot.enrol(secret)
    made = Worker(urls, pilot, run_seconds)
    task = asyncio.create_task(made.run(first))
    try:
        await made.until("attach", lambda: made.attached >= 0)
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
