"""Leases: who has which job until when, over pauses, losses and restarts."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import CommandKind, Policy, VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Requirements
from job_manager_adapter.services import dispatch
from job_manager_adapter.services.errors import SessionClosedError
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.records import Claim, Claimed, Release, Released
from job_manager_adapter.views import PilotState
from tests.harness.programs import eventually
from tests.unit.job_manager_adapter.services.world import (
    LEASE,
    OPERATOR,
    World,
    kinds,
    verdicts,
)

SHORT_LEASE = 0.5


async def test_a_lease_lives_by_being_named_and_dies_without(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    for _ in range(3):
        world.clock.advance(LEASE - 1)
        await pilot.run(job)
        await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.RUNNING
    world.clock.advance(LEASE + 1)
    await world.services.housekeeping.expire()
    view = await world.job(job)
    assert view.attempts[0].failure_class is FailureClass.LEASE_LOST and view.attempts[0].charged
    # the pilot comes back: what it holds is no longer its own, and its report is too late
    frame = await pilot.say()
    assert kinds(frame) == [CommandKind.ABANDON]
    late = pilot.report(job)
    assert verdicts(await pilot.say(reports=(late,))) == [VerdictKind.SUPERSEDED]
    assert (await world.services.credit.summary(OPERATOR)).receipts == 0
    assert (await world.job(job)).attempts[0].late is Outcome.SUCCEEDED  # recorded, for people


async def test_a_lost_job_goes_to_another_pilot_once(world: World) -> None:
    first = await world.pilot(b"1")
    job = (await world.submit()).jobs[0]
    await first.hear()
    second = await world.pilot(b"2")
    world.clock.advance(LEASE + 1)
    await second.say()
    await world.services.housekeeping.expire()
    frame = await second.hear()
    assert frame is not None and [(o.job, o.attempt) for o in frame.offers] == [(job, 2)]
    assert verdicts(await second.finish(job, 2)) == [VerdictKind.ACCEPTED]
    assert verdicts(await first.finish(job, 1)) == [VerdictKind.SUPERSEDED]
    assert (await world.job(job)).state is JobState.SUCCEEDED
    assert (await world.services.credit.summary(OPERATOR)).receipts == 1


async def test_a_silent_pilot_is_not_offered_again_what_it_has_lost(world: World) -> None:
    """Its connection may seem to live for long: a cable pulled, a laptop asleep."""
    silent = await world.pilot(cores=4)
    job = (await world.submit()).jobs[0]
    await silent.hear()
    world.clock.advance(LEASE + 1)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.WAITING
    other = await world.pilot(b"other")
    assert list(other.offers) == [(job, 2)]
    another = (await world.submit()).jobs[0]
    await silent.say()  # it was only asleep, and is offered work again
    assert (await world.job(another)).state is JobState.LEASED


async def test_an_offer_that_was_lost_on_its_way_costs_no_attempt(world: World) -> None:
    """A pilot that can speak and not hear would use a job up in three leases."""
    deaf = await world.pilot()
    job = (await world.submit(max_attempts=1)).jobs[0]
    for _ in range(3):
        world.clock.advance(LEASE / 2)
        deaf.session.receive(deaf.frame(holding=()))
    await world.services.housekeeping.expire()
    view = await world.job(job)
    assert view.state is JobState.WAITING and "did not take the offer" in view.message
    assert [one.charged for one in view.attempts] == [False]


async def test_a_paused_pilot_keeps_its_lease(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit(limits={"pause_seconds": 3600})).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    await pilot.say(paused=True)
    world.clock.advance(3000)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.RUNNING
    assert (await world.services.pilots.get(OPERATOR, pilot.id)).state is PilotState.PAUSED
    await pilot.attach()  # resumed
    world.clock.advance(LEASE + 1)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).attempts[0].failure_class is FailureClass.LEASE_LOST


async def test_a_pause_has_an_end(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit(limits={"pause_seconds": 3600})).jobs[0]
    await pilot.hear()
    await pilot.say(paused=True)
    world.clock.advance(3599)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.LEASED
    world.clock.advance(2)
    await world.services.housekeeping.expire()
    view = await world.job(job)
    assert view.state is JobState.WAITING and "paused for longer than 3600 s" in view.message
    assert view.attempts[0].failure_class is FailureClass.PREEMPTED
    assert not view.attempts[0].charged and view.attempts_charged == 0


async def test_without_a_word_of_it_a_pause_may_last_a_day(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.say(paused=True)
    world.clock.advance(86400 - 1)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.LEASED
    world.clock.advance(2)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.WAITING


async def test_restarts_of_the_manager_do_not_lengthen_a_pause(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit(limits={"pause_seconds": 3600})).jobs[0]
    await pilot.hear()
    await pilot.say(paused=True)
    world.clock.advance(3000)
    await world.restart()
    world.clock.advance(590)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.LEASED
    world.clock.advance(20)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).attempts[0].failure_class is FailureClass.PREEMPTED


async def test_a_heartbeat_after_the_end_revives_nothing(world: World) -> None:
    first = await world.pilot(b"1")
    job = (await world.submit()).jobs[0]
    await first.hear()
    await first.run(job)
    world.clock.advance(LEASE)
    assert kinds(await first.say()) == []  # nobody has swept yet
    assert kinds(await first.say(paused=True)) == []
    assert await first.attach() is not None and (job, 1) in first.holding
    await world.services.housekeeping.expire()
    assert (await world.job(job)).attempts[0].failure_class is FailureClass.LEASE_LOST
    assert kinds(await first.hear()) == [CommandKind.ABANDON]
    assert (await world.job(job)).attempt == 1  # and it takes room until it is gone
    first.holding.clear()
    await first.say()
    assert (job, 2) in first.offers


async def test_a_report_that_beats_the_sweep_counts(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    world.clock.advance(LEASE + 1)
    assert verdicts(await pilot.finish(job)) == [VerdictKind.ACCEPTED]
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.SUCCEEDED


async def test_an_offer_that_ran_out_is_not_made_again(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    pilot.holding.clear()  # a crash of its VM
    world.clock.advance(LEASE)
    assert (await pilot.attach()).offers == () and not pilot.holding
    await world.services.housekeeping.expire()
    await pilot.say()
    await pilot.say()
    assert set(pilot.holding) == {(job, 2)}


@asynccontextmanager
async def housekeeping(world: World) -> AsyncIterator[None]:
    """With leases of `SHORT_LEASE`."""
    policy = Policy(heartbeat_seconds=0.1, lease_seconds=SHORT_LEASE)
    world.config = replace(world.config, policy=policy)
    await world.restart()
    running = asyncio.create_task(world.services.run())
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def stand_still(world: World) -> None:
    """The whole process, as after SIGSTOP."""
    began = time.monotonic()
    time.sleep(2 * SHORT_LEASE)
    world.clock.advance(time.monotonic() - began)


async def test_a_manager_that_stood_still_blames_no_pilot(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with housekeeping(world):
        pilot = await world.pilot()
        job = (await world.submit()).jobs[0]
        await pilot.hear()
        await pilot.run(job)
        stand_still(world)
        await eventually(lambda: "stood still" in caplog.text, what="the sweep")
        await world.services.housekeeping.expire()
        assert (await world.job(job)).state is JobState.RUNNING
        world.clock.advance(60)  # now it is the pilot that is silent
        await eventually(lambda: lost(world, job), what="an expired lease")


async def test_not_even_while_it_waited_for_its_store(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, release = asyncio.Event(), asyncio.Event(), world.store.release

    async def slow(many: Sequence[Release]) -> list[Released]:
        asked.set()
        await answer.wait()
        return await release(many)

    async with housekeeping(world):
        silent, pilot = await world.pilot(b"1"), await world.pilot(b"2")
        lost_one, job = (await world.submit(2)).jobs
        await silent.hear()
        await pilot.hear()
        monkeypatch.setattr(world.store, "release", slow)
        world.clock.advance(SHORT_LEASE - 0.1)
        await pilot.run(job)
        world.clock.advance(0.2)
        await asked.wait()
        stand_still(world)
        answer.set()
        await eventually(lambda: "stood still" in caplog.text, what="the sweep")
        await eventually(lambda: lost(world, lost_one), what="an expired lease")
        await world.services.housekeeping.expire()
        assert (await world.job(job)).state is JobState.RUNNING


async def lost(world: World, job: str) -> bool:
    return (await world.job(job)).attempts[0].outcome is Outcome.LOST


async def test_after_a_restart_leases_go_on(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    world.clock.advance(LEASE * 5)  # the manager was away
    await world.restart()
    world.clock.advance(LEASE - 1)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.RUNNING
    with pytest.raises(SessionClosedError) as over:  # not superseded: it may come back at once
        world.services.pilots.session(pilot.id, pilot.session.number)
    assert over.value.code is ErrorCode.UNAVAILABLE
    frame = await pilot.attach()
    assert frame.commands == () and frame.offers == ()
    frame = await pilot.finish(job)
    assert verdicts(frame) == [VerdictKind.ACCEPTED] and len(frame.receipts) == 1


async def test_an_offer_lost_in_a_crash_is_made_again(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]  # claimed and committed; nobody heard of it
    await world.restart()
    frame = await pilot.attach()
    frames = [frame, await pilot.hear()]
    offers = [offer for frame in frames if frame for offer in frame.offers]
    assert [(offer.job, offer.attempt) for offer in offers] == [(job, 1)]
    assert offers[0].spec.command == ("true",)


async def test_after_a_rollback_the_pilot_is_offered_the_same_attempt(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    pilot.holding.clear()  # the virtual machine went back to an older snapshot
    await pilot.attach()
    await pilot.hear()
    assert (job, 1) in pilot.holding


async def test_a_claim_that_failed_does_not_put_the_oldest_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RETRY_SECONDS", 0.0)
    claim, failures = world.store.claim, iter([StoreError("away")])

    async def shaky(many: Sequence[Claim]) -> list[list[Claimed]]:
        for error in failures:
            raise error
        return await claim(many)

    monkeypatch.setattr(world.store, "claim", shaky)
    (older,) = (await world.submit(requirements=Requirements(memory_mib=100))).jobs
    await world.submit(requirements=Requirements(memory_mib=200))
    pilot = await world.pilot()
    await pilot.attach()  # it asks again
    await pilot.hear()
    assert list(pilot.offers) == [(older, 1)]
