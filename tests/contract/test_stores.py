"""One suite for every store: what is promised by store.base, over {memory, sqlite}."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import (
    FailureClass,
    JobState,
    Outcome,
    Output,
    Requirements,
    Usage,
)
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.core.attempts import MAX_UNCHARGED
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.memory import MemoryStore
from job_manager_adapter.store.records import (
    Claim,
    Claimed,
    DrainRow,
    EnrolmentRow,
    Finish,
    JobQuery,
    JournalEntry,
    NewJob,
    NewPilot,
    PilotChange,
    Release,
    Retire,
    Selected,
    Start,
    Submission,
    TokenRow,
)
from job_manager_adapter.store.sqlite import SqliteStore

OUTPUT = Output(name="stdout.log", sha256="a" * 64, size=3)
KEY = "k" * 43


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
    await made.open()
    yield made
    await made.close()


def ident(kind: str, number: int) -> str:
    return make_id(kind, 1.0, number)


def new_job(number: int, **fields: object) -> NewJob:
    return NewJob(
        **{  # type: ignore[arg-type]
            "id": ident("j", number),
            "experiment": "lhc",
            "name": f"job-{number}",
            "spec": b'{"experiment": "lhc", "command": ["true"]}',
            "requirements": Requirements(),
            "priority": 0,
            "max_attempts": 3,
            "pause_seconds": 600.0,
            **fields,
        }
    )


async def submit(store: Store, *jobs: NewJob, key: str | None = None, digest: str = "") -> None:
    batch = ident("b", int(jobs[0].id[-3:], 36))
    await store.submit([Submission(batch, jobs, 100.0, "owner", key, digest)])


async def claim(store: Store, pilot: str = "p-1", count: int = 1, klass: int = 1) -> list[Claimed]:
    return (await store.claim([Claim(pilot, klass, count, 200.0)]))[0]


def report(job: str, attempt: int = 1, **fields: object) -> Report:
    values = {
        "job": job,
        "attempt": attempt,
        "outcome": Outcome.SUCCEEDED,
        "exit_code": 0,
        "usage": Usage(cpu_seconds=5.0),
        "outputs": (OUTPUT,),
        **fields,
    }
    return Report.model_validate(values)


def receipt(job: str, number: int = 1, launcher: str = KEY) -> Receipt:
    statement = Statement(
        key=KEY,
        id=ident("r", number),
        enrolment=ident("e", 1),
        launcher=launcher,
        pilot=ident("p", 1),
        experiment="lhc",
        job=job,
        attempt=1,
        cpu_seconds=5.0,
        granted=2.5,
        leased_at=200.0,
        accepted_at=300.0,
    )
    return Receipt(statement=statement, signature="s" * 86)


async def state(store: Store, job: str) -> JobState:
    row = await store.job(job)
    assert row is not None
    return row.state


# Submission


async def test_submitted_jobs_are_there_in_order(store: Store) -> None:
    jobs = [new_job(number, labels={"run": str(number)}) for number in range(1, 6)]
    (result,) = await store.submit([Submission(ident("b", 1), tuple(jobs), 100.0)])
    assert result.created and result.jobs == tuple(job.id for job in jobs)
    assert [(item.count, item.priority) for item in result.waiting] == [(5, 0)]
    first = await store.jobs(JobQuery(limit=3))
    rest = await store.jobs(JobQuery(limit=3, after=first[-1].sequence))
    assert [row.id for row in [*first, *rest]] == [job.id for job in jobs]
    newest = await store.jobs(JobQuery(limit=2, newest=True))
    assert [row.id for row in newest] == [jobs[4].id, jobs[3].id]
    found = await store.jobs(JobQuery(labels=(("run", "4"),)))
    assert [row.id for row in found] == [jobs[3].id]
    assert (await store.specs([jobs[0].id, ident("j", 99)])) == {jobs[0].id: jobs[0].spec}
    assert await store.counts("lhc", None) == {JobState.WAITING: 5}
    assert await store.counts("alice", None) == {}
    assert await store.counts(None, ident("b", 1)) == {JobState.WAITING: 5}


async def test_a_key_is_good_for_one_request(store: Store) -> None:
    many = [
        Submission(ident("b", n), (new_job(n),), 1.0, "lhc", "key", digest)
        for n, digest in ((1, "x"), (2, "x"), (3, "y"))
    ]
    first, again, other = await store.submit(many)
    assert first.created and not first.conflict
    assert not again.created and not again.conflict and again.jobs == first.jobs
    assert again.batch == first.batch
    assert other.conflict
    assert len(await store.jobs(JobQuery())) == 1
    somebody = Submission(ident("b", 4), (new_job(4),), 1.0, "alice", "key", "y")
    assert (await store.submit([somebody]))[0].created


async def test_an_old_key_is_forgotten_with_its_last_job(store: Store) -> None:
    first = Submission(ident("b", 1), (new_job(1), new_job(2)), 1.0, "lhc", "key", "x")
    again = Submission(ident("b", 2), (new_job(3),), 9.0, "lhc", "key", "y")
    await store.submit([first])
    await store.cancel([Selected(ident("j", 1), None, 2.0), Selected(ident("j", 2), None, 2.0)])
    await store.forget([ident("j", 1)])
    assert await store.forget_keys(5.0) == 0
    await store.forget([ident("j", 2)])
    assert await store.forget_keys(1.0) == 0
    assert (await store.submit([again]))[0].conflict
    assert await store.forget_keys(5.0) == 1
    assert (await store.submit([again]))[0].created


async def test_classes_are_what_jobs_ask_for(store: Store) -> None:
    big = Requirements(cores=4)
    await submit(
        store,
        new_job(1),
        new_job(2, requirements=big),
        new_job(3, requirements=Requirements(cores=4)),
        new_job(4, experiment="alice"),
        new_job(5, priority=7),
    )
    waiting = {
        (item.klass.experiment, item.klass.requirements.cores, item.priority): item.count
        for item in await store.waiting()
    }
    assert waiting == {("lhc", 1, 0): 1, ("lhc", 4, 0): 2, ("alice", 1, 0): 1, ("lhc", 1, 7): 1}
    assert len(await store.classes()) == 3


# Claims


async def test_claims_go_by_priority_then_age_and_never_twice(store: Store) -> None:
    await submit(store, *(new_job(n, priority=n % 2) for n in range(1, 7)))
    one, two = await store.claim([Claim("p-1", 1, 2, 200.0), Claim("p-2", 1, 3, 200.0)])
    assert [got.job for got in one] == [ident("j", 1), ident("j", 3)]
    assert [got.job for got in two] == [ident("j", 5), ident("j", 2), ident("j", 4)]
    assert {got.attempt for got in [*one, *two]} == {1}
    assert [got.job for got in await claim(store, count=5)] == [ident("j", 6)]
    assert await claim(store) == []
    leases = {lease.job: lease.pilot for lease in await store.open_leases()}
    assert leases[ident("j", 1)] == "p-1" and leases[ident("j", 4)] == "p-2"
    assert await store.waiting() == []


async def test_claims_pass_over_what_rests_and_keep_it(store: Store) -> None:
    await submit(store, *(new_job(number) for number in range(1, 5)))
    resting = frozenset({ident("j", 1), ident("j", 3)})
    (claimed,) = await store.claim([Claim("p-1", 1, 3, 200.0, resting)])
    assert [got.job for got in claimed] == [ident("j", 2), ident("j", 4)]
    assert [got.job for got in await claim(store, count=9)] == [ident("j", 1), ident("j", 3)]


async def test_a_requeued_job_says_how_often_it_failed(store: Store) -> None:
    await submit(store, new_job(1))
    failed = {"outcome": Outcome.FAILED, "failure_class": FailureClass.PAYLOAD, "outputs": ()}
    for attempt in (1, 2):
        (got,) = await claim(store)
        (end,) = await store.finish([Finish("p-1", report(got.job, attempt, **failed), 300.0)])
        assert end.failures == attempt
    (got,) = await claim(store)
    lost = Release(got.job, 3, FailureClass.PREEMPTED, "", 400.0)
    assert [end.failures for end in await store.release([lost])] == [0]
    (got,) = await claim(store)
    (end,) = await store.finish([Finish("p-1", report(got.job, 4, **failed), 300.0)])
    assert (end.state, end.failures) == (JobState.FAILED, 0)


async def test_only_the_holder_starts(store: Store) -> None:
    await submit(store, new_job(1))
    await claim(store)
    job = ident("j", 1)
    wrong = [Start(job, 1, "p-2", 210.0), Start(job, 2, "p-1", 210.0), Start("j-x", 1, "p-1", 2.0)]
    assert await store.start(wrong) == [False, False, False]
    assert await store.start([Start(job, 1, "p-1", 210.0)]) == [True]
    assert await store.start([Start(job, 1, "p-1", 220.0)]) == [False]
    assert await state(store, job) is JobState.RUNNING
    (attempt,) = await store.attempts(job)
    assert attempt.started_at == 210.0 and attempt.ended_at is None


async def test_a_report_may_say_when_its_attempt_began_to_run(store: Store) -> None:
    await submit(store, new_job(1), new_job(2))
    await claim(store, count=2)
    await store.start([Start(ident("j", 1), 1, "p-1", 210.0)])
    for number in (1, 2):
        done = report(ident("j", number))
        await store.finish([Finish("p-1", done, 300.0, started_at=220.0)])
    began = [(await store.attempts(ident("j", number)))[0].started_at for number in (1, 2)]
    assert began == [210.0, 220.0]


# Reports


async def test_a_report_counts_once(store: Store) -> None:
    await submit(store, new_job(1))
    await claim(store)
    job = ident("j", 1)
    item = Finish("p-1", report(job), 300.0, receipt(job))
    first, again = await store.finish([item, item])
    assert (first.verdict, first.state) == (VerdictKind.ACCEPTED, JobState.SUCCEEDED)
    assert (again.verdict, again.state) == (VerdictKind.ACCEPTED, None)
    later = (await store.finish([item]))[0]
    assert (later.verdict, later.state) == (VerdictKind.ACCEPTED, None)
    ledger = await store.ledger("lhc")
    assert (ledger.granted, ledger.receipts, ledger.cpu_seconds) == (2.5, 1, 5.0)
    assert (await store.ledger("alice")).receipts == 0
    assert [got.statement.job for _, got in await store.receipts(None, 0, 10)] == [job]
    (attempt,) = await store.attempts(job)
    assert attempt.outputs == (OUTPUT,) and attempt.accepted and attempt.granted == 2.5
    assert attempt.usage.cpu_seconds == 5.0
    assert await store.open_leases() == []


async def test_strangers_and_ghosts_are_rejected(store: Store) -> None:
    await submit(store, new_job(1))
    await claim(store)
    job = ident("j", 1)
    results = await store.finish(
        [
            Finish("p-2", report(job), 300.0, receipt(job)),
            Finish("p-1", report(job, 2), 300.0),
            Finish("p-1", report(ident("j", 9)), 300.0),
        ]
    )
    assert [item.verdict for item in results] == [VerdictKind.REJECTED] * 3
    assert await state(store, job) is JobState.LEASED
    assert (await store.ledger(None)).receipts == 0


async def test_an_older_attempt_cannot_move_the_job(store: Store) -> None:
    await submit(store, new_job(1))
    await claim(store)
    job = ident("j", 1)
    (released,) = await store.release([Release(job, 1, FailureClass.LEASE_LOST, "lost", 250.0)])
    assert released.state is JobState.WAITING and released.pilot == "p-1"
    assert released.requeued is not None and released.requeued.count == 1
    (late,) = await store.finish([Finish("p-1", report(job), 260.0, receipt(job))])
    assert late.verdict is VerdictKind.SUPERSEDED and late.state is None
    (again,) = await claim(store, "p-2")
    assert again.attempt == 2
    (late,) = await store.finish([Finish("p-1", report(job), 260.0, receipt(job))])
    assert late.verdict is VerdictKind.SUPERSEDED
    done = Finish("p-2", report(job, 2), 300.0, receipt(job, 2))
    assert (await store.finish([done]))[0].state is JobState.SUCCEEDED
    assert (await store.ledger(None)).receipts == 1
    lost, good = await store.attempts(job)
    assert (lost.outcome, lost.failure_class, lost.charged) == (
        Outcome.LOST,
        FailureClass.LEASE_LOST,
        True,
    )
    assert good.outcome is Outcome.SUCCEEDED


async def test_failures_are_retried_until_the_limit(store: Store) -> None:
    await submit(store, new_job(1, max_attempts=2))
    job = ident("j", 1)
    failure = {"outcome": Outcome.FAILED, "exit_code": 3, "failure_class": FailureClass.PAYLOAD}
    await claim(store)
    (first,) = await store.finish([Finish("p-1", report(job, 1, **failure), 300.0)])
    assert first.state is JobState.WAITING and first.requeued is not None
    await claim(store)
    (second,) = await store.finish(
        [Finish("p-1", report(job, 2, message="exit code 3", **failure), 310.0)]
    )
    assert second.state is JobState.FAILED and second.requeued is None
    row = await store.job(job)
    assert row is not None
    assert (row.charged, row.failure_class, row.message) == (2, FailureClass.PAYLOAD, "exit code 3")
    (retried,) = await store.retry([Selected(job, "lhc", 400.0)])
    assert retried.requeued is not None
    (third,) = await claim(store)
    assert third.attempt == 3
    row = await store.job(job)
    assert row is not None and row.charged == 0


async def test_ends_that_cost_nothing_are_limited_too(store: Store) -> None:
    await submit(store, new_job(1, max_attempts=1))
    job = ident("j", 1)
    for number in range(1, MAX_UNCHARGED + 1):
        assert [got.attempt for got in await claim(store)] == [number]
        release = Release(job, number, FailureClass.PREEMPTED, "gone", 300.0)
        (result,) = await store.release([release])
        assert (result.state is JobState.FAILED) == (number == MAX_UNCHARGED)
    assert await claim(store) == []


# Users


async def test_cancel_in_every_state(store: Store) -> None:
    await submit(store, new_job(1), new_job(2), new_job(3))
    await claim(store)
    ids = [ident("j", n) for n in (1, 2, 9)]
    running, waiting, unknown = await store.cancel([Selected(job, None, 300.0) for job in ids])
    assert (running.was, running.pilot, running.attempt) == (JobState.LEASED, "p-1", 1)
    assert waiting.was is JobState.WAITING and waiting.waiting is not None
    assert unknown.refusal
    assert await state(store, ids[0]) is JobState.CANCELLED
    (again,) = await store.cancel([Selected(ids[0], None, 300.0)])
    assert "already" in again.refusal
    (foreign,) = await store.cancel([Selected(ident("j", 3), "alice", 300.0)])
    assert foreign.refusal == "no such job"
    (late,) = await store.finish([Finish("p-1", report(ids[0]), 310.0, receipt(ids[0]))])
    assert late.verdict is VerdictKind.SUPERSEDED
    assert await state(store, ids[0]) is JobState.CANCELLED
    assert [got.job for got in await claim(store, count=5)] == [ident("j", 3)]
    (attempt,) = await store.attempts(ids[0])
    assert attempt.outcome is Outcome.CANCELLED and attempt.ended_at == 300.0


async def test_only_dead_jobs_are_retried_and_forgotten(store: Store) -> None:
    await submit(store, new_job(1), new_job(2))
    (refused,) = await store.retry([Selected(ident("j", 1), None, 1.0)])
    assert refused.refusal
    await store.cancel([Selected(ident("j", 1), None, 300.0)])
    assert await store.finished_before(300.0, 10) == []
    assert await store.finished_before(301.0, 10) == [(ident("j", 1), 0)]
    await store.forget([ident("j", 1), ident("j", 2)])
    assert await store.job(ident("j", 1)) is None
    assert await store.job(ident("j", 2)) is not None


async def test_waiting_ahead(store: Store) -> None:
    await submit(
        store,
        new_job(1),
        new_job(2, requirements=Requirements(cores=2)),
        new_job(3),
        new_job(4, priority=5),
        new_job(5, experiment="alice"),
    )
    row = await store.job(ident("j", 3))
    assert row is not None and await store.waiting_ahead(row) == 3


async def test_upstream_hears_each_state_once(store: Store) -> None:
    await submit(store, new_job(1, upstream="u-1"), new_job(2))
    job = ident("j", 1)
    assert await store.upstream_open("lhc") == [(job, "u-1")]
    (due,) = await store.upstream_due("lhc", 10)
    assert (due.upstream, due.state, due.attempt) == ("u-1", JobState.WAITING, None)
    await store.upstream_told([(job, JobState.WAITING)])
    assert await store.upstream_due("lhc", 10) == []
    await claim(store)
    await store.finish([Finish("p-1", report(job), 300.0, receipt(job))])
    (due,) = await store.upstream_due("lhc", 10)
    assert due.state is JobState.SUCCEEDED and due.attempt is not None
    assert due.attempt.exit_code == 0
    assert await store.finished_before(1000.0, 10) == []
    await store.upstream_told([(job, JobState.SUCCEEDED)])
    assert await store.upstream_open("lhc") == []
    assert await store.finished_before(1000.0, 10) == [(job, 1)]


# Fleet


def pilot(number: int, launcher: str = "l", word: str = "s", at: float = 10.0) -> NewPilot:
    return NewPilot(
        id=ident("p", number),
        key=KEY,
        launcher_key=launcher.ljust(43, "_"),
        secret_sha256=hashlib.sha256(word.encode()).hexdigest(),
        host=ident("h", number),
        capabilities=Capabilities(cores=2, memory_mib=100, disk_mib=100),
        at=at,
        max_boots=3,
    )


async def enrolment(store: Store, word: str = "s", allowed: int = 1) -> str:
    row = EnrolmentRow(
        id=ident("e", len(await store.enrolments()) + 1),
        secret_sha256=hashlib.sha256(word.encode()).hexdigest(),
        label="box",
        created_at=1.0,
        expires_at=1000.0,
        launchers_allowed=allowed,
    )
    await store.add_enrolments([row])
    return row.id


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
    order = Retire((ident("p", 1),), FailureClass.PREEMPTED, "bye", 60.0)
    (released,) = await store.retire([order])
    assert {item.job for item in released} == {ident("j", 1), ident("j", 2)}
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
    await submit(store, new_job(1), new_job(2, max_attempts=1))
    await claim(store, ident("p", 1), count=2)
    launcher = "l".ljust(43, "_")
    good = ident("j", 1)
    await store.finish(
        [
            Finish(ident("p", 1), report(good), 300.0, receipt(good, launcher=launcher)),
            Finish(ident("p", 1), report(ident("j", 2), outcome=Outcome.FAILED), 300.0),
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


# Access


async def test_tokens(store: Store) -> None:
    row = TokenRow(ident("t", 1), "h1", "experiment", "lhc", "ci", 1.0, None)
    await store.add_token(row)
    assert await store.token("h1") == row
    assert await store.token("h2") is None
    assert await store.revoke_token(row.id)
    assert not await store.revoke_token(ident("t", 2))
    assert [token.revoked for token in await store.tokens()] == [True]


async def test_the_journal_is_bounded(store: Store) -> None:
    assert await store.journal_last() == 0
    for first in range(1, 100, 10):
        await store.append_journal(JournalEntry(first, first + 9, b"x"), keep=30)
    assert await store.journal_last() == 100
    assert [entry.first for entry in await store.journal(0, 100)] == [61, 71, 81, 91]
    assert [entry.first for entry in await store.journal(80, 1)] == [81]
