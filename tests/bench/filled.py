"""A manager's database with a million jobs in it, made by SQL within seconds.

Only what bulk is made here: the schema is the store's own, and what is measured or checked later
goes through the manager.
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.job import JobSpec, Requirements
from job_manager_adapter.store.sqlite import SqliteStore

AT = 1_700_000_000.0
ENROLMENT = f"e-{0:020}"
CPU_FLAGS = tuple(f"flag_{number}" for number in range(80))
"""As many as a PC's processor has."""
CAPABILITIES = Capabilities(
    cores=4, memory_mib=8192, disk_mib=65536, cpu_flags=CPU_FLAGS, cpu_model="A processor"
)


@dataclass(frozen=True)
class Bulk:
    """Jobs by sequence: the first `leased` are leased, of which half run; the others wait."""

    experiment: str
    waiting: int
    classes: int = 1
    leased: int = 0
    pilots: int = 0
    """They hold the leases in turn."""

    def requirements(self, number: int) -> Requirements:
        """Of the classes, counted from 0: no two are the same, and a pilot takes one job of any."""
        cores, memory = 1 + number % 4, 5000 + number // 4
        return Requirements(cores=cores, memory_mib=memory, disk_mib=64)

    def job(self, sequence: int) -> str:
        return f"j-{sequence:020}"

    def pilot(self, number: int) -> str:
        """Counted from 0."""
        return f"p-{number:020}"

    def keys(self, number: int) -> list[tuple[str, int]]:
        """The attempts that a pilot holds."""
        held = range(1 + number, self.leased + 1, self.pilots)
        return [(self.job(sequence), 1) for sequence in held]


async def fill(database: Path, bulk: Bulk) -> None:
    """Makes the database. It must not exist, and nobody uses it meanwhile."""
    store = SqliteStore(database)
    await store.open()
    await store.close()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA cache_size = -262144")
        connection.execute("BEGIN")
        _classes(connection, bulk)
        _pilots(connection, bulk)
        _jobs(connection, bulk)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _classes(connection: sqlite3.Connection, bulk: Bulk) -> None:
    connection.executemany(
        "INSERT INTO classes (id, experiment, requirements) VALUES (?, ?, ?)",
        (
            (number + 1, bulk.experiment, bulk.requirements(number).model_dump_json())
            for number in range(bulk.classes)
        ),
    )


def _pilots(connection: sqlite3.Connection, bulk: Bulk) -> None:
    hosts = [(f"h-{number:020}", f"{number:043}", ENROLMENT) for number in range(bulk.pilots)]
    connection.executemany(
        "INSERT INTO hosts (id, launcher_key, enrolment, label) VALUES (?, ?, ?, '')", hosts
    )
    capabilities = CAPABILITIES.model_dump_json()
    connection.executemany(
        "INSERT INTO pilots (id, host, enrolment, key, capabilities, enrolled_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            (bulk.pilot(number), host, ENROLMENT, key, capabilities, AT)
            for number, (host, key, _) in enumerate(hosts)
        ),
    )


def _jobs(connection: sqlite3.Connection, bulk: Bulk) -> None:
    total = bulk.leased + bulk.waiting
    numbers = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :total)"
        " SELECT {} FROM n WHERE i <= :most"
    )
    held = "i <= :leased"
    connection.execute(
        "INSERT INTO jobs (sequence, id, batch, experiment, class, name, state, priority, attempt,"
        " max_attempts, pilot, started_at, pause_seconds, submitted_at, changed_at, labels) "
        + numbers.format(
            "i, printf('j-%020d', i), printf('b-%020d', i / 100), :experiment, 1 + i % :classes,"
            f" 'job', iif({held}, iif(i % 2, 'leased', 'running'), 'waiting'), 0, {held}, 3,"
            f" iif({held}, printf('p-%020d', (i - 1) % max(:pilots, 1)), NULL),"
            f" iif({held} AND i % 2 = 0, :at, NULL), 86400, :at, :at, '{{}}'"
        ),
        _values(bulk, total, total),
    )
    connection.execute(
        "INSERT INTO specs (sequence, spec) " + numbers.format("i, :spec"),
        _values(bulk, total, total),
    )
    if bulk.leased:
        connection.execute(
            "INSERT INTO attempts (job, attempt, pilot, leased_at) "
            + numbers.format("i, 1, printf('p-%020d', (i - 1) % :pilots), :at"),
            _values(bulk, total, bulk.leased),
        )


def _values(bulk: Bulk, total: int, most: int) -> dict[str, object]:
    spec = JobSpec(
        experiment=bulk.experiment,
        command=("/usr/bin/generate", "--events", "1000", "--seed", "4711"),
        environment={"RUN": "4711", "BEAM": "7000"},
    )
    return {
        "total": total,
        "most": most,
        "leased": bulk.leased,
        "pilots": bulk.pilots,
        "classes": bulk.classes,
        "experiment": bulk.experiment,
        "at": AT,
        "spec": spec.model_dump_json(exclude_defaults=True).encode(),
    }
