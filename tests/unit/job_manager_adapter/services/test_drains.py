"""Drains of pilots, hosts and the fleet: told, remembered, held to their deadlines, undone."""

import pytest

from copilot_agent.protocol.frames import CommandKind, ManagerFrame, VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Phase
from job_manager_adapter.services.errors import ForbiddenError
from job_manager_adapter.store.fleet_records import DrainRow
from job_manager_adapter.views import DrainRequest, PilotState
from tests.unit.job_manager_adapter.services.world import (
    LEASE,
    LHC,
    OPERATOR,
    FakePilot,
    World,
    kinds,
    verdicts,
)


async def test_drain_and_undo(world: World) -> None:
    pilot = await world.pilot()
    view = await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=9))
    assert view.state is PilotState.DRAINING
    frame = await pilot.hear()
    assert frame is not None and frame.commands[0].kind is CommandKind.DRAIN
    assert frame.commands[0].deadline_seconds == 9
    job = (await world.submit()).jobs[0]
    assert await pilot.say(commands_done=(frame.commands[0].id,)) is None
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(undo=True))
    frame = await pilot.hear()
    assert kinds(frame) == [CommandKind.UNDRAIN]
    assert frame is not None and [offer.job for offer in frame.offers] == [job]


def drains(frame: ManagerFrame | None) -> list[tuple[CommandKind, float | None]]:
    """What a frame says of drains."""
    both = (CommandKind.DRAIN, CommandKind.UNDRAIN)
    commands = frame.commands if frame else ()
    return [(one.kind, one.deadline_seconds) for one in commands if one.kind in both]


async def state(world: World, pilot: FakePilot) -> PilotState:
    return (await world.services.pilots.get(OPERATOR, pilot.id)).state


async def busy(world: World, launcher: bytes = b"l") -> tuple[FakePilot, str]:
    """A pilot that runs a job."""
    job = (await world.submit()).jobs[0]
    pilot = await world.pilot(launcher)
    await pilot.hear()
    await pilot.run(job)
    return pilot, job


async def test_what_is_running_may_end_without_a_deadline(world: World) -> None:
    pilot, job = await busy(world)
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest())
    for _ in range(3):
        world.clock.advance(LEASE - 1)
        await pilot.say(draining=True)
        await world.services.housekeeping.expire()
    assert verdicts(await pilot.finish(job)) == [VerdictKind.ACCEPTED]


async def test_at_the_deadline_a_silent_pilot_loses_its_job_uncharged(world: World) -> None:
    pilot, job = await busy(world)
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=30))
    world.clock.advance(39.9)  # a heartbeat more than the deadline, for the pilot's own report
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.RUNNING
    world.clock.advance(0.2)
    await world.services.housekeeping.expire()
    view = await world.job(job)
    assert view.state is JobState.WAITING and "deadline" in view.message
    assert view.attempts[0].failure_class is FailureClass.PREEMPTED and view.attempts_charged == 0
    assert CommandKind.ABANDON in kinds(await pilot.hear())


async def test_what_is_only_moved_out_at_the_deadline_may_end(world: World) -> None:
    pilot, job = await busy(world)
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=30))
    pilot.holding[job, 1] = Phase.STAGE_OUT
    world.clock.advance(41)
    await pilot.say()
    await world.services.housekeeping.expire()
    assert verdicts(await pilot.finish(job)) == [VerdictKind.ACCEPTED]


async def test_a_restart_forgets_neither_drain_nor_deadline(world: World) -> None:
    pilot, job = await busy(world)
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=50))
    world.clock.advance(20)
    await world.restart()  # before the pilot has heard of it
    view = await world.services.pilots.get(OPERATOR, pilot.id)
    assert view.drained_by == "pilot" and view.drain_deadline is not None
    assert drains(await pilot.attach()) == [(CommandKind.DRAIN, 30.0)]
    assert await state(world, pilot) is PilotState.DRAINING
    world.clock.advance(41)
    await world.services.housekeeping.expire()
    assert (await world.job(job)).attempts[0].failure_class is FailureClass.PREEMPTED
    assert (job, 2) not in pilot.offers


async def test_a_jump_of_the_wall_clock_moves_no_deadline(world: World) -> None:
    pilot, job = await busy(world)
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=30))
    world.clock.now += 3 * 86400
    await world.services.draining.refresh()
    await world.services.housekeeping.expire()
    assert (await world.job(job)).state is JobState.RUNNING


async def test_a_restart_does_not_leave_a_pilot_drained_for_ever(world: World) -> None:
    pilot = await world.pilot()
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest())
    await pilot.hear()  # it drains
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(undo=True))
    await world.restart()  # before the pilot has heard of it
    assert drains(await pilot.attach(draining=True)) == [(CommandKind.UNDRAIN, None)]


async def test_after_a_reconnect_the_deadline_is_what_is_left_of_it(world: World) -> None:
    pilot = await world.pilot()
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=50))
    world.clock.advance(30)
    assert drains(await pilot.attach()) == [(CommandKind.DRAIN, 20.0)]


async def test_a_host_drains_also_with_its_next_pilot(world: World) -> None:
    pilot = await world.pilot(b"1")
    other = await world.pilot(b"2")
    view = await world.services.hosts.drain(OPERATOR, pilot.host, DrainRequest())
    assert view.draining
    assert drains(await pilot.hear()) == [(CommandKind.DRAIN, None)]
    assert await state(world, other) is PilotState.ALIVE
    next_boot = FakePilot(world, pilot.secret, b"1")
    await next_boot.enrol()
    assert drains(await next_boot.attach()) == [(CommandKind.DRAIN, None)]
    jobs = (await world.submit(2)).jobs
    await other.hear()
    await next_boot.hear()
    assert set(other.offers) == {(jobs[0], 1)} and not next_boot.offers
    view = await world.services.hosts.drain(OPERATOR, pilot.host, DrainRequest(undo=True))
    assert not view.draining
    await next_boot.hear()
    assert set(next_boot.offers) == {(jobs[1], 1)}


async def test_the_fleet_drains_and_says_how_far_it_has_come(world: World) -> None:
    pilot, job = await busy(world)
    fleet = await world.services.draining.drain_fleet(OPERATOR, DrainRequest(deadline_seconds=60))
    (drain,) = fleet.drains
    assert (drain.of, drain.pilots_holding, drain.jobs_held, fleet.jobs_held) == ("fleet", 1, 1, 1)
    assert drain.deadline is not None and (drain.deadline - drain.since).total_seconds() == 60
    late = await world.pilot(b"2")
    assert await state(world, late) is PilotState.DRAINING
    waiting = (await world.submit()).jobs[0]
    await pilot.finish(job)
    fleet = await world.services.draining.fleet(OPERATOR)
    assert fleet.drains[0].jobs_held == 0 and fleet.pilots[PilotState.DRAINING] == 2
    fleet = await world.services.draining.drain_fleet(OPERATOR, DrainRequest(undo=True))
    assert fleet.drains == ()
    await pilot.hear()
    await late.hear()
    assert (waiting, 1) in {**pilot.offers, **late.offers}
    with pytest.raises(ForbiddenError):
        await world.services.draining.drain_fleet(LHC, DrainRequest())


async def test_each_drain_is_undone_on_its_own_and_the_earliest_deadline_counts(
    world: World,
) -> None:
    pilot = await world.pilot()
    await world.services.draining.drain_fleet(OPERATOR, DrainRequest())
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=9))
    assert drains(await pilot.hear()) == [(CommandKind.DRAIN, 9.0)]
    view = await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(undo=True))
    assert view.drained_by == "fleet" and view.state is PilotState.DRAINING
    assert drains(await pilot.hear()) == [(CommandKind.DRAIN, None)]
    await world.services.draining.drain_fleet(OPERATOR, DrainRequest(undo=True))
    assert drains(await pilot.hear()) == [(CommandKind.UNDRAIN, None)]


async def test_what_another_manager_was_told_is_heard_of_here(world: World) -> None:
    pilot = await world.pilot()
    await world.store.drain([DrainRow("*", 1.0)])
    await world.services.draining.refresh()
    assert drains(await pilot.hear()) == [(CommandKind.DRAIN, None)]
    await world.store.undrain(["*"])
    await world.services.draining.refresh()
    assert drains(await pilot.hear()) == [(CommandKind.UNDRAIN, None)]
    await world.services.draining.refresh()
    assert await pilot.hear() is None


async def test_a_drain_ends_with_its_pilot(world: World) -> None:
    pilot = await world.pilot()
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest())
    await world.services.pilots.retire(OPERATOR, pilot.id)
    await world.services.draining.refresh()
    assert (await world.services.draining.fleet(OPERATOR)).drains == ()


async def test_a_job_that_waits_for_the_end_of_a_drain_says_so(world: World) -> None:
    await world.pilot()
    job = (await world.submit(principal=LHC, requirements={"cores": 2})).jobs[0]
    await world.services.draining.drain_fleet(OPERATOR, DrainRequest())
    answer = await world.services.jobs.explain(LHC, job)
    assert "1 drain" in answer.summary and "fleet show" in answer.next_step
