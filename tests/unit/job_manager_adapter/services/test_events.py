import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from job_manager_adapter.services.events import Events
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.views import Event
from tests.unit.job_manager_adapter.services.world import ALICE, LHC, OPERATOR, World


async def take(world: World, principal: Principal, count: int, after: int = 0) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(5):
        async for event in world.services.events.subscribe(principal, after):
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_a_jobs_life_is_told_in_order(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    await pilot.finish(job)
    await world.services.events.flush()
    events = await take(world, LHC, 4)
    assert [event.state for event in events] == ["waiting", "leased", "running", "succeeded"]
    assert {event.subject for event in events} == {job}
    kinds = [event.kind for event in await take(world, OPERATOR, 6)]
    assert kinds == ["pilot", "pilot", "job", "job", "job", "job"]
    later = await take(world, LHC, 1, after=events[2].id)
    assert later == events[3:]


async def test_live_events_reach_only_those_who_may_see(world: World) -> None:
    mine = asyncio.create_task(take(world, ALICE, 1))
    await asyncio.sleep(0)  # it is subscribed now
    await world.submit(experiment="lhc")
    await world.submit(1, ALICE, experiment="alice")
    await world.services.events.flush()
    (event,) = await mine
    assert event.experiment == "alice"


async def test_ids_go_on_after_a_restart(world: World) -> None:
    await world.submit()
    await world.services.events.flush()
    (first,) = await take(world, OPERATOR, 1)
    await world.restart()
    await world.submit()
    await world.services.events.flush()
    (second,) = await take(world, OPERATOR, 1, after=first.id)
    assert second.id > first.id


async def test_a_subscription_ends_with_the_service(world: World) -> None:
    async def all_events() -> list[Event]:
        return [event async for event in world.services.events.subscribe(OPERATOR, 0)]

    task = asyncio.create_task(all_events())
    await asyncio.sleep(0)  # it is subscribed now
    await world.submit()
    await world.services.close()
    async with asyncio.timeout(5):
        events = await task
    assert [event.state for event in events] == ["waiting"]


async def test_a_flush_that_is_cancelled_is_not_written_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, append = asyncio.Event(), asyncio.Event(), world.store.append_journal

    async def slow(*args: Any) -> None:
        begun.set()
        await gate.wait()
        await append(*args)

    await world.submit()
    monkeypatch.setattr(world.store, "append_journal", slow)
    flush = asyncio.create_task(world.services.events.flush())
    await begun.wait()
    flush.cancel()
    closing = asyncio.create_task(world.services.events.close())
    await asyncio.sleep(0)  # it has begun to write, too
    gate.set()
    await closing
    entries: Sequence[object] = await world.store.journal(0, 10)
    assert len(entries) == 1


async def test_what_happens_while_the_store_is_away_fills_no_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> int:
        raise StoreError("away")

    events = Events(world.store, world.clock, keep=10)
    await events.start()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "append_journal", away)
        for number in range(100):
            events.emit("pilot", f"p-{number}", "paused")
        with pytest.raises(StoreError):
            await events.flush()
    await events.flush()
    told = [event.subject async for event in events._catch_up(0)]
    assert told == [f"p-{number}" for number in range(90, 100)]
