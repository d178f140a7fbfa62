"""Jobs as their owners see them."""

import asyncio
from typing import Any

import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Requirements
from job_manager_adapter.services.errors import ForbiddenError, InvalidError, NotFoundError
from job_manager_adapter.services.jobs import JobFilter
from job_manager_adapter.views import DrainRequest, SubmitRequest
from tests.unit.job_manager_adapter.services.world import ALICE, LHC, OPERATOR, World, spec


async def count(world: World) -> int:
    return sum((await world.services.jobs.counts(OPERATOR)).counts.values())


async def test_unknown_and_foreign_experiments_are_refused(world: World) -> None:
    jobs = world.services.jobs
    unknown = SubmitRequest(jobs=(spec(), spec(experiment="atlas")))
    with pytest.raises(CopilotError) as caught:
        await jobs.submit(OPERATOR, unknown)
    assert caught.value.code is ErrorCode.UNKNOWN_EXPERIMENT
    assert caught.value.errors[0].field == "jobs[1].experiment"
    assert "lhc" in caught.value.remedy
    with pytest.raises(ForbiddenError):
        await jobs.submit(LHC, SubmitRequest(jobs=(spec(), spec(experiment="alice"))))
    assert await count(world) == 0


async def test_missing_inputs_and_huge_commands_name_their_field(world: World) -> None:
    world.links.missing.add("grid.tar")
    inputs = ({"name": "grid.tar", "sha256": "0" * 64, "size": 1},)
    huge = ("x", *("y" * 4096,) * 80)
    request = SubmitRequest(jobs=(spec(), spec(inputs=inputs), spec(command=huge)))
    with pytest.raises(InvalidError) as caught:
        await world.services.jobs.submit(LHC, request)
    fields = [error.field for error in caught.value.errors]
    assert fields == ["jobs[1].inputs[0].sha256", "jobs[2].command"]
    assert await count(world) == 0
    world.links.missing.clear()
    assert await world.services.jobs.validate(LHC, SubmitRequest(jobs=(spec(), spec()))) == 2
    assert await count(world) == 0


async def test_the_same_key_gives_the_same_jobs(world: World) -> None:
    jobs = world.services.jobs
    request = SubmitRequest(jobs=(spec(),), idempotency_key="night-1")
    first, again = await jobs.submit(LHC, request), await jobs.submit(LHC, request)
    assert first.created and not again.created and again.jobs == first.jobs
    with pytest.raises(CopilotError) as caught:
        await jobs.submit(LHC, SubmitRequest(jobs=(spec(name="b"),), idempotency_key="night-1"))
    assert caught.value.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert await count(world) == 1


async def test_a_job_for_an_idle_pilot_is_stored_and_claimed_in_one_commit(world: World) -> None:
    await world.submit()  # so that its kind is known
    pilot = await world.pilot(cores=3)
    await world.services.events.flush()
    commits, told = world.store.stats.commits, world.services.events.subscribe(OPERATOR)
    following = asyncio.ensure_future(anext(told))
    (job,) = (await world.submit()).jobs
    assert world.store.stats.commits == commits + 1
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == [job]
    await world.services.events.flush()
    seen = [await following, await anext(told)]
    assert [(event.subject, event.state) for event in seen] == [(job, "waiting"), (job, "leased")]


async def test_a_claim_ahead_of_a_submission_that_stored_nothing_does_no_harm(
    world: World,
) -> None:
    request = SubmitRequest(jobs=(spec(),), idempotency_key="night-1")
    await world.services.jobs.submit(LHC, request)
    pilot = await world.pilot(cores=3)
    assert not (await world.services.jobs.submit(LHC, request)).created
    (job,) = (await world.submit()).jobs
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == [job]


async def test_experiments_see_their_own_jobs_only(world: World) -> None:
    jobs = world.services.jobs
    mine = (await world.submit(3)).jobs
    theirs = (await world.submit(1, ALICE, experiment="alice")).jobs
    page = await jobs.list(LHC, JobFilter())
    assert [view.id for view in page.items] == list(mine)
    for call in (jobs.get, jobs.explain, jobs.live_log, jobs.outputs):
        with pytest.raises(NotFoundError):
            await call(LHC, theirs[0])
    changed = await jobs.cancel(LHC, [*theirs, mine[0]])
    assert changed.changed == (mine[0],) and changed.unchanged == {theirs[0]: "no such job"}
    with pytest.raises(ForbiddenError):
        await jobs.list(LHC, JobFilter(experiment="alice"))
    assert (await jobs.counts(LHC)).counts[JobState.WAITING] == 2


async def test_pages_and_filters(world: World) -> None:
    jobs = world.services.jobs
    ids = list((await world.submit(5, labels={"run": "7"})).jobs)
    other = await world.submit(2)
    first = await jobs.list(LHC, JobFilter(labels=(("run", "7"),)), limit=3)
    rest = await jobs.list(LHC, JobFilter(labels=(("run", "7"),)), first.next_cursor, limit=3)
    assert [view.id for view in first.items + rest.items] == ids and rest.next_cursor is None
    newest = await jobs.list(LHC, JobFilter(newest=True), limit=1)
    assert newest.items[0].id == other.jobs[1]
    batch = await jobs.list(LHC, JobFilter(batch=other.batch))
    assert len(batch.items) == 2
    with pytest.raises(InvalidError):
        await jobs.list(LHC, JobFilter(), "'; DROP TABLE jobs")


async def test_explain_says_what_is_missing(world: World) -> None:
    jobs = world.services.jobs
    small = (await world.submit()).jobs[0]
    assert "no pilot" in (await jobs.explain(LHC, small)).summary
    big = (await world.submit(requirements=Requirements(cores=64))).jobs[0]
    pilot = await world.pilot()
    await pilot.hear()
    blocked = await jobs.explain(LHC, big)
    assert blocked.pilots_alive == 1 and blocked.pilots_fit_idle == 0
    assert "cores >= 64" in blocked.summary
    cores = next(view for view in blocked.requirements if "cores" in view.requirement)
    assert (cores.pilots_fit, cores.best_offer) == (0, "1")
    queued = (await world.submit()).jobs[0]
    busy = await jobs.explain(LHC, queued)
    assert (busy.pilots_fit_now, busy.pilots_fit_idle, busy.waiting_ahead) == (0, 1, 1)
    assert "busy" in busy.summary
    assert "offered to pilot" in (await jobs.explain(LHC, small)).summary


async def test_a_dead_letter_says_why_and_can_be_revived(world: World) -> None:
    jobs = world.services.jobs
    pilot = await world.pilot()
    job = (await world.submit(max_attempts=1)).jobs[0]
    await pilot.hear()
    failure: dict[str, Any] = {
        "outcome": Outcome.FAILED,
        "failure_class": FailureClass.STAGE_IN,
        "message": "grid.tar: wrong hash",
        "exit_code": None,
    }
    await pilot.finish(job, **failure)
    view = await jobs.get(LHC, job)
    assert (view.state, view.failure_class) == (JobState.FAILED, FailureClass.STAGE_IN)
    assert view.message == "grid.tar: wrong hash"
    assert "wrong hash" in (await jobs.explain(LHC, job)).summary
    assert (await jobs.retry(LHC, [job])).changed == (job,)
    await pilot.hear()
    assert (job, 2) in pilot.holding
    await pilot.finish(job, 2)
    assert (await jobs.get(LHC, job)).state is JobState.SUCCEEDED
    refused = await jobs.retry(LHC, [job])
    assert refused.changed == () and "succeeded" in refused.unchanged[job]
    found = await jobs.outputs(LHC, job)
    assert (found.attempt, len(found.outputs)) == (2, 2)
    assert (await jobs.outputs(LHC, job, 1)).attempt == 1
    with pytest.raises(NotFoundError):
        await jobs.outputs(LHC, job, 3)


async def test_a_waiting_job_is_cancelled_before_anybody_gets_it(world: World) -> None:
    job = (await world.submit()).jobs[0]
    await world.services.jobs.cancel(LHC, [job])
    pilot = await world.pilot()
    assert await pilot.hear() is None
    assert (await world.job(job)).state is JobState.CANCELLED


async def test_experiments_share_the_fleet(world: World) -> None:
    await world.submit(4)
    await world.submit(4, ALICE, experiment="alice")
    pilot = await world.pilot(cores=4)
    experiments = sorted(offer.spec.experiment for offer in pilot.offers.values())
    assert experiments == ["alice", "alice", "lhc", "lhc"]


async def test_a_job_in_a_paused_or_draining_pilot_says_how_long(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit(limits={"pause_seconds": 7200})).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    explain = world.services.jobs.explain
    answer = await explain(LHC, job)
    assert (answer.summary, answer.next_step) == (f"running on pilot {pilot.id}", "")
    await pilot.say(paused=True)
    world.clock.advance(1800)
    answer = await explain(LHC, job)
    assert "paused" in answer.summary and "1.5 h" in answer.next_step
    await pilot.attach()
    await world.services.pilots.drain(OPERATOR, pilot.id, DrainRequest(deadline_seconds=90))
    answer = await explain(LHC, job)
    assert "drain" in answer.summary and "in 90 s" in answer.next_step
