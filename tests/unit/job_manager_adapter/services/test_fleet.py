"""Enrolment, renewal, bans: who gets in, and who does not."""

import hashlib

import pytest

from copilot_agent.protocol.enrolment import renewal_statement
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import JobState
from job_manager_adapter.services.context import base64url
from job_manager_adapter.services.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RefusedError,
    SessionClosedError,
    UnauthenticatedError,
)
from job_manager_adapter.views import BanRequest, DrainRequest, PilotState, Role
from tests.unit.job_manager_adapter.services.world import (
    LEASE,
    LHC,
    OPERATOR,
    FakePilot,
    World,
)


async def secret_of(world: World, **fields: object) -> str:
    (view,) = await world.services.enrolments.create(**fields)  # type: ignore[arg-type]
    assert view.secret is not None
    return view.secret


async def test_the_secret_belongs_to_the_first_launcher(world: World) -> None:
    secret = await secret_of(world)
    first, second = FakePilot(world, secret, b"1"), FakePilot(world, secret, b"2")
    await first.enrol()
    with pytest.raises(RefusedError, match="another launcher"):
        await second.enrol()
    again = FakePilot(world, secret, b"1")
    await again.enrol()
    assert again.host == first.host and again.id != first.id
    stored = (await world.services.enrolments.list())[0]
    assert stored.secret is None and stored.hosts == (first.host,)
    assert hashlib.sha256(secret.encode()).hexdigest() != secret


async def test_a_forged_signature_is_refused(world: World) -> None:
    secret = await secret_of(world)
    good, forged = FakePilot(world, secret, b"1"), FakePilot(world, secret, b"2")
    request = good.request().model_copy(update={"signature": forged.request().signature})
    with pytest.raises(RefusedError, match="signature"):
        await world.services.pilots.enrol(request)
    other_key = good.request().model_copy(update={"pilot_key": forged.request().pilot_key})
    with pytest.raises(RefusedError, match="signature"):
        await world.services.pilots.enrol(other_key)


async def test_expired_and_revoked_secrets(world: World) -> None:
    secret = await secret_of(world, expires_seconds=100)
    world.clock.advance(101)
    with pytest.raises(RefusedError, match="expired"):
        await FakePilot(world, secret).enrol()
    secret = await secret_of(world)
    views = await world.services.enrolments.list()
    assert (await world.services.enrolments.revoke(views[-1].id)).revoked
    with pytest.raises(RefusedError, match="revoked"):
        await FakePilot(world, secret).enrol()
    with pytest.raises(NotFoundError):
        await world.services.enrolments.revoke("e-unknown")


async def test_the_next_boot_takes_the_place_of_the_last(world: World) -> None:
    secret = await secret_of(world)
    old = FakePilot(world, secret)
    await old.enrol()
    await old.attach()
    job = (await world.submit()).jobs[0]
    await old.hear()
    new = FakePilot(world, secret)
    await new.enrol()
    with pytest.raises(SessionClosedError) as caught:
        while True:
            await old.session.next(0)
    assert caught.value.code is ErrorCode.PILOT_RETIRED
    with pytest.raises(RefusedError):
        await old.attach()
    await new.attach()
    await new.hear()
    assert (job, 2) in new.holding
    assert (await world.job(job)).attempts_charged == 0


async def test_a_captured_enrolment_supersedes_nobody(world: World) -> None:
    pilot = await world.pilot()
    captured = pilot.request()
    await world.services.housekeeping.look_after_pilots()  # writes down that it was heard of
    with pytest.raises(RefusedError) as refused:
        await world.services.pilots.enrol(captured)
    assert refused.value.code is ErrorCode.CONFLICT and "new key" in refused.value.remedy
    assert (await world.services.pilots.get(OPERATOR, pilot.id)).state is PilotState.ALIVE


async def test_an_enrolment_whose_answer_was_lost_may_be_repeated(world: World) -> None:
    pilot = FakePilot(world, await secret_of(world))
    await pilot.enrol()
    await pilot.enrol()
    await pilot.attach()


async def test_renewal_needs_the_pilots_key_and_a_fresh_nonce(world: World) -> None:
    pilots = world.services.pilots
    pilot = await world.pilot()
    nonce = await pilots.challenge(pilot.id)
    signature = base64url(pilot.key.sign(renewal_statement(pilot.id, nonce)))
    await pilots.renew(pilot.id, nonce, signature)
    with pytest.raises(UnauthenticatedError):
        await pilots.renew(pilot.id, nonce, signature)  # used
    nonce = await pilots.challenge(pilot.id)
    with pytest.raises(UnauthenticatedError, match="signature"):
        await pilots.renew(pilot.id, nonce, signature)
    nonce = await pilots.challenge(pilot.id)
    signature = base64url(pilot.key.sign(renewal_statement(pilot.id, nonce)))
    world.clock.advance(301)
    with pytest.raises(UnauthenticatedError, match="nonce"):
        await pilots.renew(pilot.id, nonce, signature)
    with pytest.raises(UnauthenticatedError):
        await pilots.challenge("p-00000000000000000000")


async def test_a_banned_host_is_out_until_it_is_forgiven(world: World) -> None:
    hosts, pilots = world.services.hosts, world.services.pilots
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    view = await hosts.ban(OPERATOR, pilot.host, BanRequest(reason="wrong results"))
    assert view.banned and view.ban_reason == "wrong results" and view.pilots_alive == 0
    with pytest.raises(SessionClosedError) as closed:
        while True:
            await pilot.session.next(0)
    assert closed.value.code is ErrorCode.HOST_BANNED
    for call in (pilots.challenge(pilot.id), pilots.attach(pilot.id, "poll"), pilot.enrol()):
        with pytest.raises(RefusedError) as refused:
            await call
        assert refused.value.code is ErrorCode.HOST_BANNED
    assert (await world.job(job)).state is JobState.WAITING
    await hosts.ban(OPERATOR, pilot.host, BanRequest(undo=True))
    await pilot.enrol()
    with pytest.raises(NotFoundError):
        await hosts.ban(OPERATOR, "h-unknown", BanRequest())


async def test_fleet_and_hosts_are_for_operators(world: World) -> None:
    pilot = await world.pilot()
    services = world.services
    calls = (
        services.pilots.list(LHC),
        services.pilots.get(LHC, pilot.id),
        services.pilots.retire(LHC, pilot.id),
        services.pilots.drain(LHC, pilot.id, DrainRequest()),
        services.hosts.list(LHC),
        services.hosts.ban(LHC, pilot.host, BanRequest()),
    )
    for call in calls:
        with pytest.raises(ForbiddenError):
            await call


async def test_lists_of_pilots_by_state(world: World) -> None:
    one, two = await world.pilot(b"1"), await world.pilot(b"2")
    gone = await world.pilot(b"3")
    await world.services.pilots.retire(OPERATOR, gone.id)
    listed = world.services.pilots.list
    assert [view.id for view in (await listed(OPERATOR)).items] == [gone.id, two.id, one.id]
    alive = await listed(OPERATOR, PilotState.ALIVE, limit=1)
    assert [view.id for view in alive.items] == [two.id]
    rest = await listed(OPERATOR, PilotState.ALIVE, cursor=alive.next_cursor)
    assert [view.id for view in rest.items] == [one.id]
    retired = await listed(OPERATOR, PilotState.RETIRED)
    assert [view.id for view in retired.items] == [gone.id]
    world.clock.advance(LEASE + 1)
    await one.say()
    await world.services.housekeeping.look_after_pilots()
    lost = await listed(OPERATOR, PilotState.LOST)
    assert [view.id for view in lost.items] == [two.id]
    assert world.services.stats().pilots[PilotState.LOST] == 1
    hosts = await world.services.hosts.list(OPERATOR)
    assert {host.pilots_alive for host in hosts.items} == {0, 1}


async def test_what_is_long_gone_leaves_the_memory(world: World) -> None:
    pilot = await world.pilot()
    world.clock.advance(LEASE + 601)
    await world.services.housekeeping.look_after_pilots()
    assert world.services.stats().pilots == {}
    with pytest.raises(SessionClosedError):
        await pilot.session.next(0)
    await pilot.attach()
    assert world.services.stats().pilots == {PilotState.ALIVE: 1}


async def test_a_lost_pilot_is_offered_nothing(world: World) -> None:
    pilot = await world.pilot()
    world.clock.advance(LEASE + 1)
    await world.services.housekeeping.look_after_pilots()
    job = (await world.submit()).jobs[0]
    assert (await world.job(job)).state is JobState.WAITING
    frame = await pilot.say()
    assert frame is not None and [offer.job for offer in frame.offers] == [job]


async def test_retention_deletes_jobs_and_files_and_keeps_receipts(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.finish(job)
    kept = (await world.submit()).jobs[0]
    world.clock.advance(world.config.retention_seconds + 1)
    await world.services.housekeeping.retain()
    with pytest.raises(NotFoundError):
        await world.job(job)
    assert (await world.job(kept)).id == kept
    assert world.links.discarded == [(job, 1)]
    page = await world.services.credit.receipts(OPERATOR)
    assert [receipt.statement.job for receipt in page.items] == [job]


async def test_tokens(world: World) -> None:
    tokens = world.services.tokens
    view = await tokens.create(Role.EXPERIMENT, "lhc", label="ci", expires_seconds=100)
    assert view.token is not None
    principal = await tokens.authenticate(view.token)
    assert (principal.role, principal.experiment) == (Role.EXPERIMENT, "lhc")
    world.clock.advance(101)
    with pytest.raises(CopilotError) as expired:
        await tokens.authenticate(view.token)
    assert expired.value.code is ErrorCode.TOKEN_EXPIRED
    operator = await tokens.create(Role.OPERATOR)
    assert operator.token is not None
    assert (await tokens.authenticate(operator.token)).role is Role.OPERATOR
    await tokens.revoke(operator.id)
    for bad in (operator.token, "nonsense", ""):
        with pytest.raises(UnauthenticatedError):
            await tokens.authenticate(bad)
    assert all(row.token is None for row in await tokens.list())
    with pytest.raises(InvalidError):
        await tokens.create(Role.OPERATOR, "lhc")
    with pytest.raises(CopilotError, match="unknown experiment"):
        await tokens.create(Role.EXPERIMENT, "atlas")


async def test_the_first_pilots_of_a_fleet_learn_that_it_has_grown(world: World) -> None:
    first = await world.pilot()
    before = (await first.attach()).policy
    assert first.session is not None
    first.session._conversation._dispatcher.clockwork.resize(10_000)
    frame = await first.say()
    assert before is not None and frame is not None and frame.policy is not None
    assert frame.policy.reconnect_seconds > before.reconnect_seconds
    assert await first.say() is None, "once is enough"


async def test_a_pilot_that_said_good_bye_is_shown_as_retired_until_it_comes_back(
    world: World,
) -> None:
    async def state() -> PilotState:
        return (await world.services.pilots.get(OPERATOR, pilot.id)).state

    pilot = await world.pilot()
    await pilot.say(draining=True, leaving=True)
    assert await state() is PilotState.DRAINING, "it is still there"
    assert pilot.session is not None
    pilot.session.detach()
    assert await state() is PilotState.RETIRED
    await pilot.attach()
    assert await state() is PilotState.ALIVE
