"""PostgreSQL's store where the common contract does not reach."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import JobState, Requirements
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.credit_records import CreditQuery
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.postgres_dump import without_password
from job_manager_adapter.store.postgres_group import store_error
from job_manager_adapter.store.postgres_link import migrations
from job_manager_adapter.store.records import JobQuery, NewsWaiting, Submission
from tests.harness.postgres import Postgres
from tests.harness.stores import claim, earned, ident, new_job, submit


@pytest.fixture
async def store(postgres: Postgres) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(postgres.database())
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("postgresql://me:a%40b@db:5432/x", "postgresql://me@db:5432/x", "a@b"),
        ("postgresql://me@db/x?sslmode=require", "postgresql://me@db/x?sslmode=require", None),
        ("postgresql://me@/x?host=/run/pg&password=p", "postgresql://me@/x?host=/run/pg", "p"),
        ("postgresql:///x", "postgresql:///x", None),
    ],
)
def test_the_password_does_not_go_onto_a_command_line(
    url: str, shown: str, password: str | None
) -> None:
    assert without_password(url) == (shown, password)


def test_failures_have_stable_codes() -> None:
    full, away = asyncpg.DiskFullError("disk"), ConnectionRefusedError("no")
    assert store_error(full).code is ErrorCode.NO_SPACE
    assert store_error(away).code is ErrorCode.UNAVAILABLE
    assert store_error(TimeoutError()).code is ErrorCode.UNAVAILABLE
    assert store_error(asyncpg.AdminShutdownError("bye")).code is ErrorCode.UNAVAILABLE
    assert store_error(asyncpg.DataError("what?")).code is ErrorCode.INTERNAL


async def test_one_that_cannot_be_done_disturbs_no_other(store: PostgresStore) -> None:
    await submit(store, new_job(1))
    results = await asyncio.gather(
        submit(store, new_job(2)),
        submit(store, new_job(1)),  # its name is taken
        submit(store, new_job(3)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    rows = await store.jobs(JobQuery())
    assert sorted(row.id for row in rows) == [ident("j", number) for number in (1, 2, 3)]


async def test_calls_at_once_share_a_commit(store: PostgresStore) -> None:
    before = store.stats.commits
    await asyncio.gather(*(submit(store, new_job(number)) for number in range(1, 51)))
    assert store.stats.commits - before <= 3
    assert store.stats.operations >= 50


async def test_a_broken_connection_is_an_error_once(
    store: PostgresStore, postgres: Postgres
) -> None:
    await submit(store, new_job(1))
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name ~ 'copilot-manager'"
    )
    postgres.run("psql", "-d", postgres.url("postgres"), "-c", cut)
    with pytest.raises(StoreError) as broken:
        async with asyncio.timeout(5):
            while True:
                await claim(store)
    assert broken.value.code is ErrorCode.UNAVAILABLE
    assert (await store.counts(None, None)) in ({JobState.WAITING: 1}, {JobState.LEASED: 1})
    await submit(store, new_job(2))


async def test_news_of_many_kinds_of_jobs_come_in_pieces(store: PostgresStore) -> None:
    await store.peers.join("speaker")
    listener = PostgresStore(store._url)
    await listener.open()
    await listener.peers.join("listener")
    jobs = tuple(
        new_job(number, requirements=Requirements(memory_mib=15 + number), priority=number)
        for number in range(1, 501)
    )
    await store.submit([Submission(ident("b", 1), jobs, 1.0)])
    rows: list[tuple[int, int, int, int]] = []
    async with asyncio.timeout(10):
        while len(rows) < len(jobs):
            if isinstance(news := await listener.peers.news(), NewsWaiting):
                rows += news.rows
    assert sorted(row[1] for row in rows) == list(range(1, 501))
    await listener.close()


async def test_receipts_of_an_older_schema_are_summed_up(postgres: Postgres) -> None:
    url = postgres.database()
    connection = await asyncpg.connect(url)
    await connection.execute(migrations()[0])
    await connection.execute("CREATE TABLE schema_version (version int NOT NULL)")
    await connection.execute("INSERT INTO schema_version VALUES (1)")
    old = earned(ident("j", 1))
    await connection.execute(
        "INSERT INTO receipts (id, job, experiment, launcher_key, body)"
        " VALUES ($1, $2, $3, $4, $5)",
        old.id, old.job, old.experiment, old.launcher, old.body,
    )  # fmt: skip
    await connection.close()
    store = PostgresStore(url)
    await store.open()
    (row,) = await store.credit(CreditQuery())
    assert (row.enrolment, row.granted, row.last) == (ident("e", 1), 2.5, 300.0)
    await store.close()
