"""One suite for every store: submissions, claims and reports."""

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import (
    FailureClass,
    JobState,
    Outcome,
    Requirements,
)
from job_manager_adapter.core.attempts import MAX_UNCHARGED
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.records import (
    Claim,
    Finish,
    JobQuery,
    Release,
    Selected,
    Start,
    Submission,
)
from tests.harness.stores import OUTPUT, claim, ident, new_job, receipt, report, state, submit

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
    assert (lost.late, good.late) == (Outcome.SUCCEEDED, None)
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
