"""Several stores on one PostgreSQL database at once, as several managers have them."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.fleet_records import Retire
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.records import (
    Claim,
    Finish,
    JobQuery,
    NewsEnded,
    NewsMoved,
    NewsRecount,
    NewsRetired,
    NewsWaiting,
    PeerNews,
    Release,
    Selected,
    Start,
)
from tests.harness.postgres import Postgres
from tests.harness.stores import enrolment, ident, new_job, pilot, receipt, report, submit

JOBS = 300


@pytest.fixture
async def stores(postgres: Postgres) -> AsyncIterator[list[PostgresStore]]:
    url = postgres.database()
    made = [PostgresStore(url) for _ in range(3)]
    for number, store in enumerate(made):
        await store.open()
        await store.peers.join(f"manager {number}")
    yield made
    for store in made:
        await store.close()


async def heard(store: PostgresStore, kind: type[PeerNews]) -> PeerNews:
    """The next news of that kind."""
    async with asyncio.timeout(5):
        while not isinstance(news := await store.peers.news(), kind):
            pass
    return news


async def test_claimers_at_once_never_get_the_same_job(stores: list[PostgresStore]) -> None:
    await submit(stores[0], *(new_job(number) for number in range(1, JOBS + 1)))
    finished: Counter[str] = Counter()

    async def work(store: PostgresStore, name: str) -> None:
        chance = random.Random(name)  # noqa: S311 - a schedule, no secret
        while claimed := (await store.claim([Claim(name, 1, chance.randint(1, 9), 200.0)]))[0]:
            await store.start([Start(got.job, got.attempt, name, 210.0) for got in claimed])
            many = [
                Finish(name, report(got.job, got.attempt), 300.0, receipt(got.job))
                for got in claimed
            ]
            for got, result in zip(claimed, await store.finish([*many, *many]), strict=False):
                finished[got.job] += result.state is JobState.SUCCEEDED

    await asyncio.gather(
        *(work(store, f"p-{a}-{b}") for a, store in enumerate(stores) for b in range(4))
    )
    assert finished == dict.fromkeys((ident("j", n) for n in range(1, JOBS + 1)), 1)
    ledger = await stores[1].ledger("lhc")
    assert (ledger.receipts, ledger.granted) == (JOBS, 2.5 * JOBS)
    numbers = [number for number, _ in await stores[2].receipts(None, 0, 1000)]
    assert len(set(numbers)) == JOBS


async def test_two_ends_of_one_attempt_are_judged_one_after_the_other(
    stores: list[PostgresStore],
) -> None:
    await submit(stores[0], *(new_job(number) for number in range(1, 21)))
    claimed = (await stores[0].claim([Claim("p-1", 1, 20, 200.0)]))[0]
    finish = [Finish("p-1", report(got.job), 300.0, receipt(got.job)) for got in claimed]
    results = await asyncio.gather(
        stores[0].finish(finish),
        stores[1].finish(finish[::-1]),
        stores[2].release(
            [Release(got.job, 1, FailureClass.PREEMPTED, "gone", 300.0) for got in claimed]
        ),
    )
    ours, theirs = results[0], results[1][::-1]
    for one, other, released in zip(ours, theirs, results[2], strict=True):
        ends = [one.state, other.state, released.state]
        assert sum(state is not None for state in ends) == 1
        verdicts = {one.verdict, other.verdict}
        if released.state is None:  # who came second repeated what was accepted
            assert verdicts == {VerdictKind.ACCEPTED}
        else:
            assert verdicts == {VerdictKind.SUPERSEDED}


async def test_a_pilot_that_moves_takes_along_what_is_claimed_for_it(
    stores: list[PostgresStore],
) -> None:
    here, there, _ = stores
    await enrolment(here)
    name = pilot(1).id
    await here.enrol([pilot(1)])
    await submit(here, *(new_job(number) for number in range(1, 41)))
    await here.peers.take([name])
    claims = [asyncio.create_task(here.claim([Claim(name, 1, 1, 200.0)])) for _ in range(20)]
    await asyncio.sleep(0)  # all are asked for, none is answered
    leases = await there.peers.take([name])
    claims += [asyncio.create_task(here.claim([Claim(name, 1, 1, 200.0)])) for _ in range(20)]
    got = [item.job for (many,) in await asyncio.gather(*claims) for item in many]
    assert sorted(got) == sorted(lease.job for lease in leases)
    assert await heard(here, NewsMoved) == NewsMoved(name)
    assert await there.peers.has(name) and not await here.peers.has(name)
    assert {lease.pilot for lease in (await there.peers.mine()).leases} <= {name}


async def test_managers_hear_what_others_do_to_their_pilots(stores: list[PostgresStore]) -> None:
    here, there, _ = stores
    await enrolment(here)
    name = pilot(1).id
    await here.enrol([pilot(1)])
    await there.peers.take([name])
    await submit(here, new_job(1), new_job(2), new_job(3, priority=4))
    news = await heard(there, NewsWaiting)
    assert isinstance(news, NewsWaiting)
    assert sorted((priority, count) for _, priority, count, _ in news.rows) == [(0, 2), (4, 1)]
    jobs = [got.job for got in (await there.claim([Claim(name, 1, 3, 200.0)]))[0]]
    await here.cancel([Selected(jobs[0], None, 300.0)])
    assert await heard(there, NewsEnded) == NewsEnded(jobs[0], 1, "cancelled")
    await here.finish([Finish(name, report(jobs[1]), 300.0, receipt(jobs[1]))])
    assert await heard(there, NewsEnded) == NewsEnded(jobs[1], 1, "")
    await here.retire([Retire((name,), FailureClass.PREEMPTED, "bye", 400.0)])
    assert await heard(there, NewsRetired) == NewsRetired(name)
    assert await heard(there, NewsEnded) == NewsEnded(jobs[2], 1, "preempted")


async def test_only_a_pilots_own_manager_says_that_its_lease_ran_out(
    stores: list[PostgresStore],
) -> None:
    here, there, _ = stores
    await enrolment(here)
    name = pilot(1).id
    await here.enrol([pilot(1)])
    await submit(here, new_job(1))
    await there.peers.take([name])
    await there.claim([Claim(name, 1, 1, 200.0)])
    late = Release(ident("j", 1), 1, FailureClass.LEASE_LOST, "lost", 300.0, overdue=True)
    assert (await here.release([late]))[0].state is None
    assert (await there.release([late]))[0].state is JobState.WAITING


async def test_one_leads_and_another_after_it(stores: list[PostgresStore]) -> None:
    for store in stores:
        await store.peers.tend()
    assert [store.peers.leading for store in stores] == [True, False, False]
    await stores[0].peers.leave()
    async with asyncio.timeout(10):
        while not stores[1].peers.leading:
            await stores[1].peers.tend()
    assert not stores[0].peers.leading


async def test_who_lost_its_connection_comes_back_with_its_number(
    stores: list[PostgresStore], postgres: Postgres
) -> None:
    store = stores[0]
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'peers'"
    postgres.run("psql", "-d", postgres.url("postgres"), "-c", sql)
    async with asyncio.timeout(10):
        with contextlib.suppress(StoreError):  # whoever asks first hears of it
            await store.peers.tend()
        await store.peers.tend()
        assert await heard(store, NewsRecount) == NewsRecount(adopted=False)
    assert (await store.jobs(JobQuery())) == []
