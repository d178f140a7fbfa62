"""A job rests after a failed attempt; others go on meanwhile."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from copilot_agent.protocol.job import FailureClass, JobState, Outcome
from job_manager_adapter.services.resting import Rest, Resting
from tests.unit.job_manager_adapter.services.world import LHC, FakePilot, World

FAILED: dict[str, Any] = {
    "outcome": Outcome.FAILED,
    "exit_code": 1,
    "failure_class": FailureClass.PAYLOAD,
}


async def resting_world(world: World, seconds: float) -> World:
    world.config = replace(world.config, retry_seconds=seconds)
    await world.restart()
    return world


async def failed(world: World, **how: Any) -> tuple[FakePilot, str]:
    """A pilot whose job has failed, in a world of long rests."""
    await resting_world(world, 3600)
    pilot = await world.pilot()
    (job,) = (await world.submit()).jobs
    await pilot.hear()
    await pilot.run(job)
    await pilot.finish(job, **{**FAILED, **how})
    return pilot, job


async def offered(pilot: FakePilot) -> list[tuple[str, int]]:
    """What the next frame with offers brings; waits for it."""
    while True:
        before = set(pilot.offers)
        frame = await pilot.session.next(5)
        assert frame is not None, "no frame within 5 s"
        for offer in frame.offers:
            pilot.offers[offer.job, offer.attempt] = offer
        if fresh := [key for key in pilot.offers if key not in before]:
            return fresh


async def test_others_of_its_kind_go_first(world: World) -> None:
    await resting_world(world, 3600)
    pilot = await world.pilot()
    first, second = (await world.submit(2)).jobs
    await pilot.hear()
    await pilot.run(first)
    await pilot.finish(first, **FAILED)
    await pilot.hear()
    assert (second, 1) in pilot.offers
    assert (first, 2) not in pilot.offers
    assert (await world.job(first)).state is JobState.WAITING
    await pilot.run(second)
    await pilot.finish(second)
    assert await pilot.hear() is None
    assert (first, 2) not in pilot.offers


async def test_it_is_offered_again_after_its_rest(world: World) -> None:
    await resting_world(world, 0.05)
    pilot = await world.pilot()
    (job,) = (await world.submit()).jobs
    await pilot.hear()
    await pilot.run(job)
    begin = asyncio.get_running_loop().time()
    await pilot.finish(job, **FAILED)
    assert await offered(pilot) == [(job, 2)]
    assert asyncio.get_running_loop().time() - begin >= 0.025


@pytest.mark.parametrize("failed_on", [0, 1])
async def test_another_pilot_is_preferred(world: World, failed_on: int) -> None:
    await resting_world(world, 0.05)
    first = await world.pilot(b"a")
    (job,) = (await world.submit()).jobs
    await first.hear()
    second = await world.pilot(b"b")
    for _ in range(failed_on):  # whoever came last is no better
        await first.say()
    await first.run(job)
    await first.finish(job, **FAILED)
    assert await offered(second) == [(job, 2)]


async def test_what_was_only_taken_away_needs_no_rest(world: World) -> None:
    pilot, job = await failed(world, failure_class=FailureClass.PREEMPTED)
    await pilot.hear()
    assert (job, 2) in pilot.offers


async def test_a_broken_host_does_not_use_up_a_job_at_once(world: World) -> None:
    pilot, job = await failed(world, failure_class=FailureClass.HOST)
    await pilot.hear()
    assert (job, 2) not in pilot.offers
    assert (await world.job(job)).attempts_charged == 0


async def test_a_restart_ends_all_rests(world: World) -> None:
    pilot, job = await failed(world)
    await world.restart()
    await pilot.attach()
    await pilot.hear()
    assert (job, 2) in pilot.offers


async def test_a_resting_job_can_be_cancelled_and_revived(world: World) -> None:
    pilot, job = await failed(world)
    assert (await world.services.jobs.cancel(LHC, [job])).changed == (job,)
    assert (await world.services.jobs.retry(LHC, [job])).changed == (job,)
    await pilot.hear()
    assert (job, 2) in pilot.offers
    assert world.services.stats().jobs_waiting.get("lhc", 0) == 0


async def test_a_resting_job_says_so(world: World) -> None:
    _, job = await failed(world)
    answer = await world.services.jobs.explain(LHC, job)
    assert "rests after a failed attempt" in answer.summary
    assert "copilot job show" in answer.next_step


async def test_one_that_failed_elsewhere_meanwhile_rests_once(world: World) -> None:
    (job,) = (await world.submit()).jobs
    (waiting,) = await world.store.waiting()
    loop, over = asyncio.get_running_loop(), asyncio.Future[Rest]()
    resting, began = Resting(0.05, over.set_result, lambda: 1.0), loop.time()
    assert resting.add(job, waiting, "p-1", 1) and resting.add(job, waiting, "p-2", 2)
    assert (await over).pilot == "p-2"
    assert loop.time() - began > 0.09  # the second, longer rest
