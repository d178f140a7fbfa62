"""One suite for every store: what users change, what schedulers hear, access."""

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import (
    JobState,
    Outcome,
    Requirements,
)
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.records import (
    Finish,
    JobQuery,
    JournalEntry,
    Selected,
    TokenRow,
)
from tests.harness.stores import claim, ident, new_job, receipt, report, state, submit

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


async def test_no_text_from_outside_is_too_odd_to_look_for(store: Store) -> None:
    await submit(store, new_job(1, labels={"run": "1"}))
    for odd in ("\0", "a\0b", "%", "'", '"', "$1", "\N{PILE OF POO}"):
        assert await store.jobs(JobQuery(labels=(("run", odd),))) == []
        assert await store.jobs(JobQuery(labels=((odd, "1"),))) == []
        assert await store.jobs(JobQuery(batch=odd)) == []
        assert await store.counts(odd, odd) == {}
        assert await store.pilots(host=odd) == await store.pilots(before=odd) == []
        assert await store.hosts(before=odd) == []


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
