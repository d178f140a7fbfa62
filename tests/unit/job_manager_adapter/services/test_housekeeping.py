"""What happens without anybody asking."""

import asyncio
from collections.abc import Sequence

import pytest

from copilot_agent.protocol.job import JobState
from job_manager_adapter.services import takeback
from job_manager_adapter.services.housekeeping import FORGET_SECONDS
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.fleet_records import PilotChange
from job_manager_adapter.store.records import Selected
from job_manager_adapter.views import PilotState
from tests.harness.programs import eventually
from tests.unit.job_manager_adapter.services.world import LEASE, OPERATOR, FakePilot, World


async def until(world: World, subject: str, state: str) -> None:
    async with asyncio.timeout(10):
        async for event in world.services.events.subscribe(OPERATOR, 0):
            if (event.subject, event.state) == (subject, state):
                return


async def test_it_runs_until_it_is_cancelled(world: World) -> None:
    running = asyncio.create_task(world.services.run())
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await until(world, job, "leased")
    world.clock.advance(LEASE + 1)

    async def waits() -> bool:
        return (await world.job(job)).state is JobState.WAITING

    await eventually(waits, what="the job, waiting again")
    await until(world, job, "waiting")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_store_in_trouble_delays_and_loses_nothing(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    finish, failures = world.store.finish, iter([StoreError("no space"), None])

    async def shaky(many: object) -> object:
        if error := next(failures, None):
            raise error
        return await finish(many)  # type: ignore[arg-type]

    world.store.finish = shaky  # type: ignore[method-assign, assignment]
    report = pilot.report(job)
    assert await pilot.say(reports=(report,)) is None  # no verdict: it was not committed
    frame = await pilot.say(reports=(report,))
    assert frame is not None and len(frame.verdicts) == 1
    assert (await world.job(job)).state is JobState.SUCCEEDED


async def test_an_expiry_that_fails_comes_again(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    release = world.store.release

    world.store.release = away  # type: ignore[method-assign, assignment]
    world.clock.advance(LEASE + 1)
    with pytest.raises(StoreError):
        await world.services.housekeeping.expire()
    world.store.release = release  # type: ignore[method-assign]
    world.clock.advance(2)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.WAITING


async def test_counters_that_went_wrong_are_read_again(world: World) -> None:
    job = (await world.submit()).jobs[0]
    await world.store.cancel([Selected(job, None, 1.0)])  # past the services
    await world.pilot()
    await world.settle()
    assert world.services.stats().jobs_waiting == {}  # the claim that came back empty showed it
    await world.store.retry([Selected(job, None, 2.0)])
    await world.services.housekeeping.recount()
    await world.settle()
    assert (await world.job(job)).state is JobState.LEASED


async def test_a_pause_that_the_store_did_not_take_is_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = await world.pilot()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "change_pilots", away)
        patch.setattr(world.store, "receipts_kept", away)
        await pilot.say(paused=True, receipts_kept=("r-" + "0" * 20,))
    row = await world.store.pilot(pilot.id)
    assert row is not None and not row.paused
    await world.services.housekeeping.look_after_pilots()
    row = await world.store.pilot(pilot.id)
    assert row is not None and row.paused


async def test_only_who_was_heard_of_is_written_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await world.pilot(b"1"), await world.pilot(b"2")
    await world.services.housekeeping.look_after_pilots()
    written: list[str] = []
    change_pilots = world.store.change_pilots

    async def change(many: Sequence[PilotChange]) -> None:
        written.extend(item.pilot for item in many)
        await change_pilots(many)

    monkeypatch.setattr(world.store, "change_pilots", change)
    world.clock.advance(1)
    await two.say()
    await world.services.housekeeping.look_after_pilots()
    await world.services.housekeeping.look_after_pilots()
    assert written == [two.id]
    row = await world.store.pilot(two.id)
    assert row is not None and row.seen_at == world.clock.time() and one.id != two.id


async def away(*_: object) -> None:
    raise StoreError("away")


async def test_a_pilot_that_is_just_attaching_is_not_forgotten(world: World) -> None:
    (enrolment,) = await world.services.enrolments.create()
    pilot = FakePilot(world, enrolment.secret or "")
    await pilot.enrol()
    pilot.session = await world.services.pilots.attach(pilot.id, "websocket")
    await world.services.housekeeping.look_after_pilots()
    assert await pilot.say() is not None


async def test_no_empty_outbox_is_kept(world: World) -> None:
    pilot = await world.pilot()
    dispatcher = world.services.pilots._dispatcher
    assert not dispatcher.outboxes
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    answer = await pilot.finish(job)
    assert dispatcher.outboxes
    await world.services.housekeeping.look_after_pilots()
    assert dispatcher.outboxes, "the receipt is still to be confirmed"
    await pilot.say(receipts_kept=tuple(receipt.statement.id for receipt in answer.receipts))
    await world.services.housekeeping.look_after_pilots()
    assert not dispatcher.outboxes


async def test_a_pilot_that_comes_back_while_it_is_being_forgotten_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = await world.pilot()
    await world.services.housekeeping.look_after_pilots()
    pilot.session.detach()
    world.clock.advance(LEASE + FORGET_SECONDS + 1)
    change_pilots, asked, gate = world.store.change_pilots, asyncio.Event(), asyncio.Event()

    async def slow(many: Sequence[PilotChange]) -> None:
        asked.set()
        await gate.wait()
        await change_pilots(many)

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "change_pilots", slow)
        looking = asyncio.create_task(world.services.housekeeping.look_after_pilots())
        await asked.wait()
        await pilot.attach()
        gate.set()
        await looking
    job = (await world.submit()).jobs[0]
    assert await pilot.hear() is not None, "its session was closed"
    await pilot.finish(job)
    assert (await world.job(job)).state is JobState.SUCCEEDED


async def test_a_paused_pilot_that_moved_to_another_manager_is_forgotten(world: World) -> None:
    pilot = await world.pilot()
    await pilot.say(paused=True)
    dispatcher = world.services.pilots._dispatcher
    takeback.left(dispatcher, pilot.id)
    assert world.services.stats().pilots[PilotState.PAUSED] == 0
    await world.services.housekeeping.look_after_pilots()
    assert pilot.id not in dispatcher.fleet.pilots
