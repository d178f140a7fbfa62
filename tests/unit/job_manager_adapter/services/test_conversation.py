"""What a pilot sees and what becomes of its jobs."""

import asyncio

import pytest

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import CommandKind, LinkRequest, Progress, VerdictKind, Wants
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, OutputFile, Phase
from job_manager_adapter.services.context import from_base64url
from job_manager_adapter.services.errors import SessionClosedError
from job_manager_adapter.services.pilots import signed
from job_manager_adapter.views import PilotState
from tests.unit.job_manager_adapter.services.world import (
    LHC,
    OPERATOR,
    World,
    kinds,
    verdicts,
)


async def test_a_job_goes_all_the_way(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == [job]
    assert {link.name for link in frame.offers[0].outputs} == {"stdout.log", "stderr.log"}
    assert (await world.job(job)).state is JobState.LEASED
    await pilot.run(job)
    assert (await world.job(job)).state is JobState.RUNNING

    world.clock.advance(20)
    frame = await pilot.finish(job)
    assert verdicts(frame) == [VerdictKind.ACCEPTED]
    (receipt,) = frame.receipts
    assert signed(world.signer.public_key, receipt.signed(), receipt.signature)
    assert len(from_base64url(receipt.signature)) == 64
    view = await world.job(job)
    assert view.state is JobState.SUCCEEDED
    assert {output.name for output in view.outputs} == {"stdout.log", "stderr.log"}
    assert view.attempts[0].credit_granted == 10 * 200 / 86400
    assert receipt.statement.granted == view.attempts[0].credit_granted


async def test_more_cpu_than_the_lease_lasted_is_not_believed(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    world.clock.advance(4)
    (receipt,) = (await pilot.finish(job)).receipts
    assert receipt.statement.cpu_seconds == 4


async def test_an_offer_is_repeated_until_the_pilot_holds_it(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    pilot.holding.clear()  # it never arrived
    assert await pilot.say() is None  # too early to say it again
    world.clock.advance(6)
    frame = await pilot.say(holding=())
    assert frame is not None and [offer.job for offer in frame.offers] == [job]
    world.clock.advance(6)
    assert await pilot.say() is None  # it holds it now


async def test_a_repeated_report_is_answered_and_counted_once(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    world.clock.advance(30)
    report = pilot.report(job)
    pilot.session.receive(pilot.frame(reports=(report,)))
    pilot.session.receive(pilot.frame(reports=(report,)))
    assert verdicts(await pilot.hear()) == [VerdictKind.ACCEPTED]
    assert verdicts(await pilot.say(reports=(report,))) == [VerdictKind.ACCEPTED]
    summary = await world.services.credit.summary(OPERATOR)
    assert summary.receipts == 1


async def test_no_verdict_before_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    gate, finish = asyncio.Event(), world.store.finish

    async def slow(many: object) -> object:
        await gate.wait()
        return await finish(many)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "finish", slow)
    pilot.session.receive(pilot.frame(reports=(pilot.report(job),)))
    assert await pilot.session.next(0.05) is None
    gate.set()
    assert verdicts(await pilot.hear()) == [VerdictKind.ACCEPTED]


async def test_receipts_are_repeated_until_the_launcher_has_them(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    (receipt,) = (await pilot.finish(job)).receipts
    await world.restart()
    assert (await pilot.attach()).receipts == (receipt,)
    await pilot.say(receipts_kept=(receipt.statement.id,))
    assert (await pilot.attach()).receipts == ()
    await world.restart()
    assert (await pilot.attach()).receipts == ()


async def test_missing_outputs_are_named_and_rejected(world: World) -> None:
    pilot = await world.pilot()
    outputs = (OutputFile(name="mass.dat"),)
    job = (await world.submit(outputs=outputs)).jobs[0]
    await pilot.hear()
    frame = await pilot.finish(job)
    assert verdicts(frame) == [VerdictKind.REJECTED] and "mass.dat" in frame.verdicts[0].reason
    world.links.missing.add("stdout.log")
    good = ({"name": "mass.dat", "sha256": "0" * 64, "size": 1},)
    logs = tuple({"name": n, "sha256": "0" * 64, "size": 0} for n in ("stdout.log", "stderr.log"))
    frame = await pilot.finish(job, outputs=good + logs)
    assert verdicts(frame) == [VerdictKind.REJECTED] and "stdout.log" in frame.verdicts[0].reason
    world.links.missing.clear()
    assert verdicts(await pilot.finish(job, outputs=good + logs)) == [VerdictKind.ACCEPTED]


async def test_a_failure_is_retried_at_once(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit(max_attempts=2)).jobs[0]
    await pilot.hear()
    failed = {"outcome": Outcome.FAILED, "failure_class": FailureClass.PAYLOAD, "exit_code": 3}
    await pilot.finish(job, 1, **failed)
    again = await pilot.hear()
    offers = list(pilot.offers)
    assert (job, 2) in offers, again
    frame = await pilot.finish(job, 2, **failed)
    assert frame.receipts == ()
    view = await world.job(job)
    assert view.state is JobState.FAILED and view.attempts_charged == 2


async def test_the_window_queues_beyond_the_slots(world: World) -> None:
    pilot = await world.pilot(cores=2, window=1)
    jobs = (await world.submit(5)).jobs
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == list(jobs[:3])
    assert await pilot.say() is None
    frame = await pilot.finish(jobs[0])
    frames = [frame, await pilot.hear()]
    assert [o.job for f in frames if f for o in f.offers] == [jobs[3]]


async def test_a_frame_that_crossed_an_offer_does_no_harm(world: World) -> None:
    pilot = await world.pilot()
    crossed = pilot.frame()
    jobs = (await world.submit(2)).jobs
    pilot.session.receive(crossed)
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == [jobs[0]]


async def test_an_overtaken_frame_changes_nothing(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    old = pilot.frame(holding=())
    await pilot.hear()
    await pilot.run(job)
    pilot.session.receive(old)
    pilot.session.receive(pilot.frame())
    await world.settle()
    assert (await world.job(job)).state is JobState.RUNNING
    assert await pilot.hear() is None


async def test_retire_releases_uncharged_and_closes(world: World) -> None:
    pilot = await world.pilot(b"1")
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    other = await world.pilot(b"2")
    view = await world.services.pilots.retire(OPERATOR, pilot.id)
    assert view.state is PilotState.RETIRED
    assert kinds(await pilot.hear()) == [CommandKind.RETIRE]
    with pytest.raises(SessionClosedError) as caught:
        await pilot.session.next(0)
    assert caught.value.code is ErrorCode.PILOT_RETIRED
    frame = await other.hear()
    assert frame is not None and [(o.job, o.attempt) for o in frame.offers] == [(job, 2)]
    assert (await world.job(job)).attempts_charged == 0


async def test_a_newer_session_closes_the_older(world: World) -> None:
    pilot = await world.pilot()
    old = pilot.session
    waiting = asyncio.create_task(old.next(5))
    await asyncio.sleep(0)  # it waits now
    await pilot.attach()
    with pytest.raises(SessionClosedError) as caught:
        await waiting
    assert caught.value.code is ErrorCode.SESSION_SUPERSEDED
    with pytest.raises(SessionClosedError):
        old.receive(pilot.frame())
    assert pilot.session.number > old.number


async def test_a_second_poll_ends_the_first(world: World) -> None:
    pilot = await world.pilot()
    first = asyncio.create_task(pilot.session.next(5))
    await asyncio.sleep(0)  # it waits now
    second = asyncio.create_task(pilot.session.next(5))
    assert await first is None
    await world.submit()
    frame = await second
    assert frame is not None and len(frame.offers) == 1


async def test_progress_and_fresh_links(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    news = Progress(job=job, attempt=1, phase=Phase.RUNNING, fraction=0.5, log_tail="event 12")
    frame = await pilot.say(progress=(news,), link_requests=(LinkRequest(job=job, attempt=1),))
    assert frame is not None and [links.job for links in frame.links] == [job]
    view = await world.job(job)
    assert (view.fraction, view.phase) == (0.5, Phase.RUNNING)
    log = await world.services.jobs.live_log(LHC, job)
    assert log is not None and log.text == "event 12" and log.live


async def test_a_hostile_pilot_cannot_fill_the_memory(world: World) -> None:
    pilot = await world.pilot()
    for number in range(5):
        pilot.holding = {(world.ids.make("j"), number + 1): Phase.RUNNING for _ in range(500)}
        reports = tuple(pilot.report(world.ids.make("j")) for _ in range(200))
        pilot.holding = {key: Phase.RUNNING for key in pilot.holding}
        await pilot.say(reports=reports)
    frames = 0
    while await pilot.hear():
        frames += 1
    pilot.holding.clear()
    await pilot.say()
    await pilot.say()
    outbox = pilot.session._conversation._dispatcher.outbox(pilot.id)
    assert not outbox.commands.things and not outbox.verdicts


async def test_capabilities_and_wants_may_change_in_one_frame(world: World) -> None:
    pilot = await world.pilot(cores=1)
    await pilot.say(wants=Wants(cores=0, memory_mib=0, disk_mib=0))
    await world.submit(requirements={"cores": 2})
    more = Capabilities(cores=2, memory_mib=4096, disk_mib=4096)
    frame = await pilot.say(capabilities=more, wants=Wants(cores=2, memory_mib=4096, disk_mib=4096))
    assert frame is not None
    assert len(frame.offers) == 1
