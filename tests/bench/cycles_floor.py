"""The floor below the cycles: the rows of a job's life through bare sqlite3, in groups.

The store's own schema and indexes, synchronous=FULL, executemany, one thread with nothing else to
do: no checks, no signatures, no network.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from copilot_agent.protocol.ids import make_id
from job_manager_adapter.store.sqlite import migrate

GROUP = 128
_SPEC = json.dumps({"experiment": "demo", "command": ["/usr/bin/simulate", "--seed", "1"]}).encode()
_USAGE = '{"wall_seconds":1.0,"cpu_seconds":0.5,"peak_memory_bytes":33554432}'
_OUTPUTS = json.dumps(
    [{"name": name, "sha256": "0" * 64, "size": 0} for name in ("stdout.log", "stderr.log")]
)
_RECEIPT = json.dumps({"statement": {"granted": 1.0, "cpu_seconds": 1.0, "padding": "x" * 480}})
"""As long as a real one; sums are taken of it by an index."""


def cycles_per_second(folder: Path, count: int) -> float:
    """Wall clock; each group is four commits: submitted, claimed, reported, receipts kept."""
    with contextlib.closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA cache_size = -65536")
        migrate(database)
        database.execute("INSERT INTO classes VALUES (1, 'demo', '{}')")
        began = time.monotonic()
        for first in range(1, count + 1, GROUP):
            _group(database, range(first, first + GROUP))
        return count / (time.monotonic() - began)


def _group(database: sqlite3.Connection, numbers: range) -> None:
    at = time.time()
    with _commit(database):
        database.executemany(
            "INSERT INTO jobs (sequence, id, batch, experiment, class, name, priority,"
            " max_attempts, pause_seconds, submitted_at, changed_at, labels)"
            " VALUES (?, ?, 'b-1', 'demo', 1, 'job', 0, 3, 86400, ?, ?, '{}')",
            [(number, make_id("j", at, number), at, at) for number in numbers],
        )
        database.executemany(
            "INSERT INTO specs VALUES (?, ?)", [(number, _SPEC) for number in numbers]
        )
    with _commit(database):
        taken = database.execute(
            "SELECT sequence, id, spec FROM jobs JOIN specs USING (sequence)"
            " WHERE state = 'waiting' AND class = 1 ORDER BY priority DESC, sequence LIMIT ?",
            (len(numbers),),
        ).fetchall()
        database.executemany(
            "UPDATE jobs SET state = 'leased', attempt = 1, pilot = ?, changed_at = ?"
            " WHERE sequence = ?",
            [(f"p-{row[0] % 64}", at, row[0]) for row in taken],
        )
        database.executemany(
            "INSERT INTO attempts (job, attempt, pilot, leased_at) VALUES (?, 1, ?, ?)",
            [(row[0], f"p-{row[0] % 64}", at) for row in taken],
        )
    with _commit(database):
        _finish(database, [(row[0], row[1]) for row in taken], at)
    with _commit(database):
        database.executemany(
            "UPDATE receipts SET kept = 1 WHERE launcher_key = ? AND id = ? AND kept = 0",
            [(f"k-{row[0] % 64}", make_id("r", at, row[0])) for row in taken],
        )


def _finish(database: sqlite3.Connection, jobs: list[tuple[int, str]], at: float) -> None:
    for _, job in jobs:
        database.execute(
            "SELECT j.sequence, j.state, j.attempt, a.pilot, a.ended_at FROM jobs j"
            " JOIN attempts a ON a.job = j.sequence AND a.attempt = 1 WHERE j.id = ?",
            (job,),
        ).fetchone()
    database.executemany(
        "UPDATE jobs SET state = 'succeeded', charged = 1, pilot = NULL, changed_at = ?"
        " WHERE sequence = ?",
        [(at, number) for number, _ in jobs],
    )
    database.executemany(
        "UPDATE attempts SET started_at = ?, ended_at = ?, outcome = 'succeeded', accepted = 1,"
        " exit_code = 0, usage = ?, outputs = ?, granted = 1.0 WHERE job = ? AND attempt = 1",
        [(at, at, _USAGE, _OUTPUTS, number) for number, _ in jobs],
    )
    database.executemany(
        "INSERT INTO receipts (id, job, experiment, launcher_key, body)"
        " VALUES (?, ?, 'demo', ?, ?)",
        [(make_id("r", at, number), job, f"k-{number % 64}", _RECEIPT) for number, job in jobs],
    )


@contextlib.contextmanager
def _commit(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    yield
    database.execute("COMMIT")
