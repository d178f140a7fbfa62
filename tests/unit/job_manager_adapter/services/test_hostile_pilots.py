"""What a pilot may not do to the jobs of others, whatever it says."""

import asyncio
from typing import Any

import pytest

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import MAX_FRAME_BYTES, LinkRequest, VerdictKind
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import JobState, OutputFile, Phase
from job_manager_adapter.services.errors import RefusedError
from job_manager_adapter.views import BanRequest, SubmitRequest
from tests.unit.job_manager_adapter.services.world import (
    LHC,
    OPERATOR,
    FakePilot,
    World,
    hold_claims,
    kinds,
    spec,
    verdicts,
)


async def test_a_report_on_anothers_attempt_takes_nothing_away(world: World) -> None:
    owner, thief = await world.pilot(b"1"), await world.pilot(b"2")
    await thief.say(draining=True)
    job = (await world.submit()).jobs[0]
    await owner.hear()
    await owner.run(job)

    assert verdicts(await thief.finish(job, draining=True)) == [VerdictKind.REJECTED]

    assert world.services.stats().leases_open == 1
    assert kinds(await owner.say()) == []
    assert verdicts(await owner.finish(job)) == [VerdictKind.ACCEPTED]
    assert (await world.job(job)).state is JobState.SUCCEEDED


async def test_a_report_on_the_next_attempt_does_not_strand_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, thief = await world.pilot(b"1"), await world.pilot(b"2")
    await thief.say(draining=True)
    committed, gate = hold_claims(world, monkeypatch)
    reply = await world.services.jobs.submit(LHC, SubmitRequest(jobs=(spec(),)))
    await committed.wait()
    thief.session.receive(thief.frame(reports=(thief.report(reply.jobs[0]),)))
    assert verdicts(await thief.session.next(10)) == [VerdictKind.REJECTED]
    gate.set()
    frame = await owner.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == list(reply.jobs)


async def test_a_ban_also_ends_an_attach_that_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts_due, asked, gate = world.store.receipts_due, asyncio.Event(), asyncio.Event()

    async def slow(launcher_key: str, limit: int) -> Any:
        asked.set()
        await gate.wait()
        return await receipts_due(launcher_key, limit)

    pilot = await world.pilot()
    pilot.session.detach()
    monkeypatch.setattr(world.store, "receipts_due", slow)
    attaching = asyncio.create_task(world.services.pilots.attach(pilot.id, "websocket"))
    await asked.wait()
    await world.services.hosts.ban(OPERATOR, pilot.host, BanRequest(reason="miner"))
    gate.set()
    with pytest.raises(RefusedError) as caught:
        await attaching
    assert caught.value.code is ErrorCode.HOST_BANNED
    job = (await world.submit()).jobs[0]
    assert (await world.job(job)).state is JobState.WAITING


async def test_strangers_who_knock_without_end_do_not_fill_the_journal(world: World) -> None:
    stranger = FakePilot(world, "x" * 43)
    for _ in range(200):
        with pytest.raises(RefusedError):
            await stranger.enrol()
    await world.services.events.flush()
    assert 1 <= await world.store.journal_last() < 100
    world.clock.advance(61)
    with pytest.raises(RefusedError):
        await stranger.enrol()
    before = await world.store.journal_last()
    await world.services.events.flush()
    assert await world.store.journal_last() == before + 1


async def test_requests_for_links_are_answered_in_frames_of_bounded_size(world: World) -> None:
    pilot = await world.pilot(cores=20, memory_mib=1 << 14, disk_mib=1 << 14)
    outputs = tuple(OutputFile(name="d/" * 7 + f"{'n' * 90}{number}") for number in range(250))
    jobs = (await world.submit(20, outputs=outputs)).jobs
    for _ in range(50):
        await pilot.hear()
        await pilot.say()
    assert len(pilot.holding) == len(jobs)
    wanted = {(job, 1) for job in jobs}
    for _ in range(200):
        if not wanted:
            break
        requests = tuple(LinkRequest(job=job, attempt=n) for job, n in sorted(wanted) * 10)
        frame = await pilot.say(link_requests=requests)
        assert frame is not None
        assert len(frame.model_dump_json(exclude_defaults=True)) < MAX_FRAME_BYTES
        wanted -= {(links.job, links.attempt) for links in frame.links}
    assert not wanted


async def test_who_holds_what_nobody_gave_and_never_listens_fills_no_memory(world: World) -> None:
    pilot = await world.pilot()
    pilot.session.receive(pilot.frame())
    for start in range(0, 20_000, 2000):
        held = [make_id("j", 1.0, number) for number in range(start, start + 2000)]
        pilot.holding = {(job, 1): Phase.RUNNING for job in held}
        pilot.session.receive(pilot.frame())
    known = world.services.pilots._dispatcher.fleet.pilots[pilot.id]
    assert len(known.doomed) <= 2000
    frame = await pilot.hear()
    assert frame is not None and len(frame.commands) == 1000  # it is told as soon as it listens


async def test_features_that_change_with_each_frame_fill_no_memory(world: World) -> None:
    pilot = await world.pilot()
    for number in range(5000):
        flags = {"cpu_flags": (f"flag{number}",)}
        changed = pilot.capabilities.model_copy(update=flags)
        pilot.session.receive(pilot.frame(capabilities=changed))
    assert len(world.services.pilots._dispatcher.fleet._flags) <= 1000
