"""What only a database in a file can get wrong: crashes, groups, versions, backups."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import JobState, Requirements
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.credit_records import CreditQuery
from job_manager_adapter.store.fleet_records import DrainRow
from job_manager_adapter.store.records import Claim, JobQuery, NewJob, Submission, TokenRow
from job_manager_adapter.store.sqlite import SqliteStore
from job_manager_adapter.store.sqlite_checkpoint import move
from tests.harness.stores import earned, ident


def submission(first: int, count: int = 1) -> Submission:
    jobs = tuple(
        NewJob(
            id=make_id("j", 1.0, number),
            experiment="lhc",
            name="job",
            spec=b"{}",
            requirements=Requirements(),
            priority=0,
            max_attempts=3,
            pause_seconds=60.0,
        )
        for number in range(first, first + count)
    )
    return Submission(f"b-{first}", jobs, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_calls_share_commits(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await asyncio.gather(*(store.submit([submission(number)]) for number in range(300)))
    assert store.stats.operations == 300
    assert store.stats.commits < 100
    claims = [store.claim([Claim(f"p-{number}", 1, 1, 2.0)]) for number in range(300)]
    got = await asyncio.gather(*claims)
    assert len({claimed.job for ((claimed,),) in got}) == 300
    await store.close()


async def test_one_failing_operation_fails_alone(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.submit([submission(1)])
    calls = [store.submit([submission(number)]) for number in (2, 1, 3)]  # 1 exists already
    good, bad, also_good = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(bad, StoreError)
    assert not isinstance(good, BaseException) and not isinstance(also_good, BaseException)
    assert len(await store.jobs(JobQuery())) == 3
    await store.submit([submission(4)])  # and life goes on
    await store.close()


async def test_a_new_class_of_a_failed_group_is_not_remembered(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    with pytest.raises(StoreError):
        await store.submit([submission(1), submission(1)])
    (result,) = await store.submit([submission(1)])
    assert result.waiting[0].klass.id == (await store.classes())[0].id
    assert len((await store.claim([Claim("p", 1, 9, 2.0)]))[0]) == 1
    await store.close()


async def test_what_was_answered_is_there_after_a_reopen(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.submit([submission(1, 5)])
    await store.claim([Claim("p-1", 1, 2, 2.0)])
    await store.close()
    store = SqliteStore(path)
    await store.open()
    assert [lease.pilot for lease in await store.open_leases()] == ["p-1", "p-1"]
    assert [(item.count, item.head) for item in await store.waiting()] == [(3, 3)]
    await store.close()


async def test_the_log_is_moved_into_the_database_beside_the_writer(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    size = path.stat().st_size
    await store.submit([submission(1, 500)])
    assert path.stat().st_size == size  # all of it is in the log
    with contextlib.closing(sqlite3.connect(path)) as beside:
        move(beside)
    assert path.stat().st_size > size
    await store.claim([Claim("p-1", 1, 2, 2.0)])
    await store.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from tests.unit.job_manager_adapter.store.test_sqlite import submission
from job_manager_adapter.store.sqlite import SqliteStore
from job_manager_adapter.store.records import Claim

async def one(store, number):
    (result,) = await store.submit([submission(number)])
    print("submitted", result.jobs[0], flush=True)
    for claimed in (await store.claim([Claim(f"p-{number}", 1, 1, 2.0)]))[0]:
        print("claimed", claimed.job, flush=True)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    number = 0
    while True:
        number += 8
        await asyncio.gather(*(one(store, number + offset) for offset in range(8)))

asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_to_kill_9(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(150)]  # in the middle of commit groups
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    said = [line.split() for line in lines if line.endswith("\n")]
    assert len(said) >= 150
    states = asyncio.run(states_in(path))
    for what, job in said:
        assert job in states
        if what == "claimed":
            assert states[job] is JobState.LEASED


async def states_in(path: Path) -> dict[str, JobState]:
    store = SqliteStore(path)
    await store.open()
    assert await store.check() == []
    rows = await store.jobs(JobQuery(limit=1 << 30))
    await store.close()
    return {row.id: row.state for row in rows}


async def test_a_newer_schema_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99") as caught:
        await SqliteStore(path).open()
    assert "newer program" in caught.value.remedy


async def test_a_pilot_that_drained_under_the_first_schema_still_does(path: Path) -> None:
    first = resources.files("job_manager_adapter.store") / "migrations" / "0001_first.sql"
    connection = sqlite3.connect(path)
    connection.executescript(first.read_text() + "PRAGMA user_version = 1;")
    connection.executemany(
        "INSERT INTO pilots (id, host, enrolment, key, capabilities, enrolled_at, draining,"
        " retired) VALUES (?, 'h', 'e', 'k', '{}', 7.0, ?, ?)",
        [("p-1", 1, 0), ("p-2", 0, 0), ("p-3", 1, 1)],
    )
    connection.commit()
    connection.close()
    store = SqliteStore(path)
    await store.open()
    assert await store.drains() == [DrainRow("p-1", 7.0)]
    await store.close()


async def test_receipts_of_an_older_schema_are_summed_up(path: Path) -> None:
    folder = resources.files("job_manager_adapter.store") / "migrations"
    connection = sqlite3.connect(path)
    for name in ("0001_first.sql", "0002_drains.sql"):
        connection.executescript((folder / name).read_text())
    connection.execute("PRAGMA user_version = 2")
    old = earned(ident("j", 1))
    connection.execute(
        "INSERT INTO receipts (id, job, experiment, launcher_key, body) VALUES (?, ?, ?, ?, ?)",
        (old.id, old.job, old.experiment, old.launcher, old.body),
    )
    connection.commit()
    connection.close()
    store = SqliteStore(path)
    await store.open()
    (row,) = await store.credit(CreditQuery())
    assert (row.enrolment, row.granted, row.last) == (ident("e", 1), 2.5, 300.0)
    await store.close()


async def test_another_file_is_refused(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore(path).open()
    with pytest.raises(StoreError, match="cannot be opened"):
        await SqliteStore(path.parent / "no" / "such" / "folder.db").open()


async def test_a_backup_is_whole_while_the_store_works(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.submit([submission(1, 100)])
    writes = [asyncio.ensure_future(store.submit([submission(n)])) for n in range(200, 260)]
    await store.backup(path.parent / "copy.db")
    await asyncio.gather(*writes)
    copy = SqliteStore(path.parent / "copy.db")
    await copy.open()
    assert await copy.check() == []
    assert len(await copy.jobs(JobQuery(limit=1000))) >= 100
    assert not (path.parent / "copy.db.partial").exists()
    await copy.close()
    with pytest.raises(StoreError, match="backup"):
        await store.backup(path.parent / "missing" / "copy.db")
    await store.close()


async def test_a_second_process_may_add_tokens_meanwhile(path: Path) -> None:
    store, tool = SqliteStore(path), SqliteStore(path)
    await store.open()
    await tool.open()
    row = TokenRow("t-1", "hash", "operator", None, "", 1.0, None)
    work = [store.submit([submission(number)]) for number in range(50)]
    await asyncio.gather(tool.add_token(row), *work)
    assert await store.token("hash") == row
    await tool.close()
    await store.close()


async def test_a_full_disk_is_said_and_survived(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.submit([submission(1)])

    def limit(connection: sqlite3.Connection, pages: Sequence[int]) -> list[None]:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return [None]

    writer = store._writer
    connection = sqlite3.connect(path)
    (used,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    await writer.write(limit, [used])
    with pytest.raises(StoreError) as caught:
        await store.submit([submission(10, 5000)])
    assert caught.value.code is ErrorCode.NO_SPACE
    await writer.write(limit, [1 << 20])
    await store.submit([submission(10, 50)])
    assert len(await store.jobs(JobQuery(limit=100))) == 51
    await store.close()


async def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.submit([submission(1)])


async def test_nobody_else_may_read_it(path: Path) -> None:
    path.parent.chmod(0o755)
    path.touch(0o644)
    store = SqliteStore(path)
    await store.open()
    await store.submit([submission(1)])
    await store.backup(path.with_name("copy.db"))
    files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    await store.close()
    assert len(files) == 4 and set(files.values()) == {0o600}
