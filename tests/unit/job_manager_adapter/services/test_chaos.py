"""Frames late, twice, out of order or never; restarts, expiries, cancels: each job ends once."""

import random
from typing import Any

import pytest

from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Phase
from job_manager_adapter.services.errors import SessionClosedError
from job_manager_adapter.services.jobs import JobFilter
from job_manager_adapter.services.pilots import signed
from job_manager_adapter.store.memory import MemoryStore
from tests.unit.job_manager_adapter.services.world import LEASE, LHC, OPERATOR, FakePilot, World

JOBS = 10


class Chaos:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.pilots: list[FakePilot] = []
        self.wire: list[tuple[FakePilot, PilotFrame]] = []
        self.reports: dict[tuple[FakePilot, tuple[str, int]], dict[str, Any]] = {}

    async def step(self) -> None:
        pilot = self.random.choice(self.pilots)
        action = self.random.choice(
            [self.work, self.wait, self.attach, self.rare, *[self.send] * 2, *[self.deliver] * 3]
        )
        await action(pilot)

    async def work(self, pilot: FakePilot) -> None:
        """One attempt goes a phase further."""
        if not pilot.holding:
            return
        key = self.random.choice(sorted(pilot.holding))
        if pilot.holding[key] is Phase.QUEUED:
            pilot.holding[key] = Phase.RUNNING
        elif pilot.holding[key] is Phase.RUNNING:
            good = self.random.random() < 0.7
            failed = {"outcome": Outcome.FAILED, "failure_class": FailureClass.HOST, "outputs": ()}
            self.reports[pilot, key] = {} if good else failed
            pilot.holding[key] = Phase.REPORTING

    async def send(self, pilot: FakePilot) -> None:
        due = [
            pilot.report(*key, **fields)
            for (owner, key), fields in self.reports.items()
            if owner is pilot
        ]
        self.wire.append((pilot, pilot.frame(reports=tuple(due))))

    async def deliver(self, _: FakePilot) -> None:
        """Any frame, and perhaps it stays on the wire to come again; perhaps it is lost."""
        if not self.wire:
            return
        index = self.random.randrange(len(self.wire))
        pilot, frame = self.wire[index]
        fate = self.random.random()
        if fate < 0.8:
            del self.wire[index]
        if fate > 0.1:
            self.receive(pilot, frame)
        if self.random.random() < 0.8:
            await self.world.settle()
        self.take(pilot, await self.answer(pilot))

    def receive(self, pilot: FakePilot, frame: PilotFrame) -> None:
        try:
            pilot.session.receive(frame)
        except SessionClosedError:
            return

    async def answer(self, pilot: FakePilot) -> ManagerFrame | None:
        try:
            return await pilot.session.next(0)
        except SessionClosedError:
            return None

    def take(self, pilot: FakePilot, frame: ManagerFrame | None) -> None:
        if frame is None or self.random.random() < 0.2:
            return  # lost on its way
        for offer in frame.offers:
            pilot.holding.setdefault((offer.job, offer.attempt), Phase.QUEUED)
        for command in frame.commands:
            if command.job and command.attempt:
                self.forget(pilot, (command.job, command.attempt))
        for verdict in frame.verdicts:
            self.forget(pilot, (verdict.job, verdict.attempt))

    def forget(self, pilot: FakePilot, key: tuple[str, int]) -> None:
        pilot.holding.pop(key, None)
        self.reports.pop((pilot, key), None)

    async def wait(self, _: FakePilot) -> None:
        self.world.clock.advance(self.random.choice([1.0, 5.0, LEASE / 2]))
        await self.world.services.housekeeping.expire()

    async def attach(self, pilot: FakePilot) -> None:
        pilot.session = await self.world.services.pilots.attach(pilot.id, "websocket")
        await self.send(pilot)

    async def rare(self, pilot: FakePilot) -> None:
        fate = self.random.random()
        if fate < 0.2:
            await self.world.restart()
            for one in self.pilots:
                await self.attach(one)
        elif fate < 0.3:
            self.world.clock.advance(LEASE + 1)
            await self.world.services.housekeeping.expire()
        elif fate < 0.4:
            pilot.holding.clear()  # an older snapshot
            await self.attach(pilot)

    async def calm_down(self) -> None:
        """The wire is clean again; every job comes to its end."""
        self.wire.clear()
        for _ in range(400):
            for pilot in self.pilots:
                await self.work(pilot)
                await self.attach(pilot)
                for owner, frame in self.wire:
                    self.receive(owner, frame)
                self.wire.clear()
                await self.world.settle()
                while frame_out := await self.answer(pilot):
                    self.take(pilot, frame_out)
            await self.world.services.housekeeping.recount()
            counts = (await self.world.services.jobs.counts(OPERATOR)).counts
            if sum(count for state, count in counts.items() if state.final) == JOBS:
                return
            self.world.clock.advance(1)
        raise AssertionError(f"jobs are left over: {counts}")


@pytest.mark.parametrize("seed", range(40))
async def test_each_job_ends_exactly_once(seed: int) -> None:
    world = await World(MemoryStore()).start()
    chaos = Chaos(world, seed)
    for number in range(3):
        pilot = await world.pilot(b"%d" % number, cores=2, window=1)
        chaos.pilots.append(pilot)
    jobs = (await world.submit(JOBS)).jobs
    for step in range(150):
        await chaos.step()
        if step == 75:
            await world.services.jobs.cancel(LHC, jobs[:1])
    await chaos.calm_down()
    page = await world.services.jobs.list(OPERATOR, JobFilter())
    assert [view.id for view in page.items] == list(jobs)
    receipts = (await world.services.credit.receipts(OPERATOR)).items
    succeeded = [view.id for view in page.items if view.state is JobState.SUCCEEDED]
    assert sorted(receipt.statement.job for receipt in receipts) == sorted(succeeded)
    assert all(signed(world.signer.public_key, one.signed(), one.signature) for one in receipts)
    for job in jobs:
        attempts = (await world.job(job)).attempts
        assert [attempt.attempt for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert sum(attempt.outcome is Outcome.SUCCEEDED for attempt in attempts) <= 1
        assert all(attempt.state == "ended" for attempt in attempts)
    assert world.services.stats().leases_open == 0
    await world.services.close()
