"""One suite for every store: enrolments, pilots, hosts."""

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import (
    FailureClass,
    JobState,
    Outcome,
)
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.fleet_records import DrainRow, PilotChange, Retire
from job_manager_adapter.store.records import Finish
from tests.harness.stores import claim, enrolment, ident, new_job, pilot, receipt, report, submit

# Fleet


async def test_a_secret_binds_to_its_launchers(store: Store) -> None:
    number = await enrolment(store)
    good, other, wrong = await store.enrol([pilot(1), pilot(2, "m"), pilot(3, word="x")])
    assert good.refusal is None and good.host == ident("h", 1) and good.enrolment == number
    assert other.refusal is ErrorCode.ENROLMENT_REFUSED and "another launcher" in other.reason
    assert wrong.refusal is ErrorCode.ENROLMENT_REFUSED and "unknown" in wrong.reason
    (late,) = await store.enrol([pilot(4, at=1000.0)])
    assert "expired" in late.reason
    assert await store.pilot(ident("p", 2)) is None
    assert (await store.enrolments())[0].hosts == (ident("h", 1),)
    assert await store.revoke_enrolment(number)
    (revoked,) = await store.enrol([pilot(5)])
    assert "revoked" in revoked.reason
    assert not await store.revoke_enrolment(ident("e", 9))


async def test_a_new_boot_supersedes_the_last(store: Store) -> None:
    await enrolment(store)
    await store.enrol([pilot(1)])
    await submit(store, new_job(1))
    await claim(store, ident("p", 1))
    (second,) = await store.enrol([pilot(2)])
    assert second.superseded == (ident("p", 1),) and second.host == ident("h", 1)
    assert [item.job for item in second.released] == [ident("j", 1)]
    row = await store.job(ident("j", 1))
    assert row is not None and (row.state, row.charged) == (JobState.WAITING, 0)
    old = await store.pilot(ident("p", 1))
    assert old is not None and old.retired
    (third,) = await store.enrol([pilot(3)])
    assert third.refusal is None
    (fourth,) = await store.enrol([pilot(4)])
    assert fourth.refusal is ErrorCode.ENROLMENT_REFUSED and "boots" in fourth.reason
    host = await store.host(ident("h", 1))
    assert host is not None and host.boots == 3 and host.label == "box"


async def test_banned_hosts_stay_out(store: Store) -> None:
    await enrolment(store, allowed=2)
    await store.enrol([pilot(1), pilot(2, "m")])
    assert await store.ban(ident("h", 1), "cheats", True)
    assert not await store.ban(ident("h", 9), "", True)
    (again,) = await store.enrol([pilot(3)])
    assert again.refusal is ErrorCode.HOST_BANNED and "cheats" in again.reason
    row = await store.pilot(ident("p", 1))
    assert row is not None and row.banned
    assert [host.id for host in await store.hosts()] == [ident("h", 2), ident("h", 1)]
    assert [host.id for host in await store.hosts(before=ident("h", 2))] == [ident("h", 1)]
    await store.ban(ident("h", 1), "", False)
    assert (await store.enrol([pilot(4)]))[0].refusal is None


async def test_pilots_change_and_retire(store: Store) -> None:
    await enrolment(store, allowed=2)
    await store.enrol([pilot(1), pilot(2, "m")])
    more = Capabilities(cores=8, memory_mib=1, disk_mib=1)
    await store.change_pilots(
        [
            PilotChange(ident("p", 1), capabilities=more, paused=True, seen_at=50.0),
            PilotChange(ident("p", 2), seen_at=40.0),
        ]
    )
    one, two = await store.pilot(ident("p", 1)), await store.pilot(ident("p", 2))
    assert one is not None and (one.capabilities, one.paused, one.seen_at) == (more, True, 50.0)
    assert two is not None and (two.seen_at, two.paused) == (40.0, False)
    await submit(store, new_job(1), new_job(2))
    await claim(store, ident("p", 1), count=2)
    assert [row.id for row in await store.holders()] == [ident("p", 1)]
    order = Retire((ident("p", 1),), FailureClass.PREEMPTED, "bye", 60.0)
    (released,) = await store.retire([order])
    assert {item.job for item in released} == {ident("j", 1), ident("j", 2)}
    assert await store.holders() == []
    assert [row.id for row in await store.pilots(retired=False)] == [ident("p", 2)]
    assert [row.id for row in await store.pilots()] == [ident("p", 2), ident("p", 1)]
    assert [row.id for row in await store.pilots(host=ident("h", 1))] == [ident("p", 1)]


async def test_drains_last_until_they_are_undone_or_their_pilot_is_gone(store: Store) -> None:
    await enrolment(store)
    await store.enrol([pilot(1)])
    asked = [DrainRow("*", 1.0, 5.0), DrainRow(ident("h", 1), 2.0), DrainRow(ident("p", 1), 3.0)]
    await store.drain(asked)
    assert await store.drains() == asked
    await store.drain([DrainRow("*", 4.0)])  # another deadline: none
    assert await store.undrain([ident("h", 1), ident("h", 2)]) == [True, False]
    assert await store.drains() == [DrainRow("*", 4.0), DrainRow(ident("p", 1), 3.0)]
    await store.retire([Retire((ident("p", 1),), FailureClass.PREEMPTED, "bye", 60.0)])
    assert await store.drains() == [DrainRow("*", 4.0)]


async def test_results_are_counted_for_pilot_and_host(store: Store) -> None:
    await enrolment(store)
    await store.enrol([pilot(1)])
    await submit(store, new_job(1), new_job(2, max_attempts=1), new_job(3))
    await claim(store, ident("p", 1), count=3)
    preempted = report(ident("j", 3), outcome=Outcome.FAILED, failure_class=FailureClass.PREEMPTED)
    launcher = "l".ljust(43, "_")
    good = ident("j", 1)
    await store.finish(
        [
            Finish(ident("p", 1), report(good), 300.0, receipt(good, launcher=launcher)),
            Finish(ident("p", 1), report(ident("j", 2), outcome=Outcome.FAILED), 300.0),
            Finish(ident("p", 1), preempted, 300.0),
        ]
    )
    row, host = await store.pilot(ident("p", 1)), await store.host(ident("h", 1))
    assert row is not None and (row.jobs_succeeded, row.jobs_failed) == (1, 1)
    assert host is not None and (host.jobs_succeeded, host.granted) == (1, 2.5)
    due = await store.receipts_due(launcher, 10)
    assert [one.statement.job for one in due] == [good]
    await store.receipts_kept("m".ljust(43, "_"), [due[0].statement.id])
    assert len(await store.receipts_due(launcher, 10)) == 1
    await store.receipts_kept(launcher, [due[0].statement.id])
    assert await store.receipts_due(launcher, 10) == []


async def test_a_pilots_key_is_good_until_it_was_heard_of(store: Store) -> None:
    await enrolment(store, allowed=2)
    (first,) = await store.enrol([pilot(1)])
    (repeated,) = await store.enrol([pilot(2)])
    assert first.refusal is None and repeated.refusal is None
    await store.change_pilots([PilotChange(ident("p", 2), seen_at=20.0)])
    (captured,) = await store.enrol([pilot(3)])
    assert captured.refusal is ErrorCode.CONFLICT
    row = await store.pilot(ident("p", 2))
    assert row is not None and not row.retired
    host = await store.host(row.host)
    assert host is not None and host.boots == 2
    (other,) = await store.enrol([pilot(4, "m")])
    assert other.refusal is None
