"""A cancelled job's payload hears of it, whatever happens on the way."""

import pytest

from copilot_agent.protocol.frames import CommandKind, VerdictKind
from copilot_agent.protocol.job import JobState, Outcome
from job_manager_adapter.views import SubmitRequest
from tests.unit.job_manager_adapter.services.world import (
    LEASE,
    LHC,
    FakePilot,
    World,
    hold_claims,
    kinds,
    spec,
    verdicts,
)


async def test_cancel_reaches_the_payload(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    changed = await world.services.jobs.cancel(LHC, [job])
    assert changed.changed == (job,)
    frame = await pilot.hear()
    assert frame is not None and kinds(frame) == [CommandKind.CANCEL]
    world.clock.advance(6)
    assert kinds(await pilot.say()) == [CommandKind.CANCEL]  # not reflected yet
    done = frame.commands[0].id
    report = pilot.report(job, outcome=Outcome.CANCELLED, outputs=())
    answer = await pilot.say(commands_done=(done,), reports=(report,))
    assert verdicts(answer) == [VerdictKind.SUPERSEDED] and kinds(answer) == []
    assert (await world.job(job)).state is JobState.CANCELLED


async def test_a_cancelled_payload_takes_room_until_it_is_gone(world: World) -> None:
    pilot = await world.pilot()
    first, second = (await world.submit(2)).jobs
    await pilot.hear()
    await pilot.run(first)
    await world.services.jobs.cancel(LHC, [first])
    frame = await pilot.hear()
    assert frame is not None and frame.offers == ()
    pilot.holding.clear()
    frame = await pilot.say()
    assert frame is not None and [offer.job for offer in frame.offers] == [second]


async def test_a_cancel_that_overtakes_the_claims_answer_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, gate = hold_claims(world, monkeypatch)
    pilot = await world.pilot()
    reply = await world.services.jobs.submit(LHC, SubmitRequest(jobs=(spec(),)))
    await committed.wait()
    await world.services.jobs.cancel(LHC, reply.jobs)
    gate.set()
    await world.settle()
    assert await pilot.hear() is None
    assert world.services.stats().leases_open == 0


async def runs(world: World) -> tuple[FakePilot, str]:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    return pilot, job


async def test_a_cancel_during_an_outage_is_in_the_first_answer_after_it(world: World) -> None:
    pilot, job = await runs(world)
    pilot.session.detach()
    await world.services.jobs.cancel(LHC, [job])
    assert kinds(await pilot.attach()) == [CommandKind.CANCEL]


async def test_a_cancel_that_was_lost_on_the_way_is_said_again_at_once(world: World) -> None:
    pilot, job = await runs(world)
    await world.services.jobs.cancel(LHC, [job])
    assert kinds(await pilot.hear()) == [CommandKind.CANCEL]  # and the connection breaks
    assert kinds(await pilot.attach()) == [CommandKind.CANCEL]
    assert kinds(await pilot.attach()) == [CommandKind.CANCEL]


async def test_a_cancel_before_a_restart_of_the_manager_ends_the_payload_too(world: World) -> None:
    pilot, job = await runs(world)
    await world.services.jobs.cancel(LHC, [job])
    await world.restart()  # which has forgotten what it wanted to say
    frame = await pilot.attach()
    assert kinds(frame) == [CommandKind.ABANDON] and frame.commands[0].job == job
    pilot.holding.clear()
    await pilot.say(commands_done=(frame.commands[0].id,))
    assert (await world.job(job)).state is JobState.CANCELLED


async def test_a_cancel_is_not_forgotten_while_the_pilot_is_away(world: World) -> None:
    pilot, job = await runs(world)
    pilot.session.detach()
    await world.services.jobs.cancel(LHC, [job])
    world.clock.advance(10 * LEASE)
    await world.services.housekeeping.expire()
    assert kinds(await pilot.attach()) in ([CommandKind.CANCEL], [CommandKind.ABANDON])
