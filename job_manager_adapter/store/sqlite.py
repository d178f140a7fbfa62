"""SQLite as store: one writer thread with group commit, reads beside it (WAL)."""

import asyncio
import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import JobState
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import records as r
from job_manager_adapter.store import sqlite_reads as reads
from job_manager_adapter.store.base import StoreError, StoreStats
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.fleet_records import (
    DrainRow,
    Enrolled,
    EnrolmentRow,
    HostRow,
    NewPilot,
    PilotChange,
    PilotRow,
    Retire,
)
from job_manager_adapter.store.group import GroupWriter, store_error
from job_manager_adapter.store.sqlite_checkpoint import MOST_PAGES, Checkpoints
from job_manager_adapter.store.sqlite_fleet import FleetWrites
from job_manager_adapter.store.sqlite_jobs import JobWrites

READERS = 3
"""Threads that read, so that a long list does not hold up a pilot that attaches."""
_P = ParamSpec("_P")
_T = TypeVar("_T")
_MIGRATION = re.compile(r"^(\d{4})_\w+\.sql$")


class SqliteStore:
    """A `store.base.Store` in one file (and its -wal and -shm beside it)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs = JobWrites()
        self._writer = GroupWriter(self._connect, last=self._jobs.claim)
        self._checkpoints = Checkpoints(self._connect, self._writer.stats)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._fleet = FleetWrites(self._jobs)

    @property
    def stats(self) -> StoreStats:
        return self._writer.stats

    async def open(self) -> None:
        await asyncio.to_thread(self._open)
        self._writer.start()
        self._checkpoints.start()

    def _open(self) -> None:
        try:
            _keep_private(self._path)
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                migrate(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self._path} cannot be opened: {error}",
                remedy="check the path, its rights and that the file is a manager's database",
            ) from error

    async def close(self) -> None:
        await asyncio.to_thread(self._checkpoints.close)
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.shutdown)
        while self._opened:
            self._opened.pop().close()

    async def backup(self, target: Path) -> None:
        await asyncio.to_thread(self._backup, target)

    def _backup(self, target: Path) -> None:
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            _keep_private(partial)
            with (
                contextlib.closing(self._connect()) as source,
                contextlib.closing(sqlite3.connect(partial)) as copy,
            ):
                source.backup(copy)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(target)
        except (sqlite3.Error, OSError) as error:
            partial.unlink(missing_ok=True)
            raise StoreError(
                f"the backup to {target} failed: {error}", remedy="choose a place with space"
            ) from error

    async def check(self) -> list[str]:
        return await self._read(_integrity)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=10,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -32768")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    async def _read(
        self,
        query: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        def run() -> _T:
            return query(self._reader(), *args, **kwargs)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except sqlite3.Error as error:
            raise store_error(error) from error

    def _reader(self) -> sqlite3.Connection:
        """The connection of this reading thread."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA cache_size = -8192")  # the system's cache has it too
            self._opened.append(connection)
        return connection

    # Jobs

    async def submit(self, many: Sequence[r.Submission]) -> list[r.Submitted]:
        return await self._writer.write(self._jobs.submit, many)

    async def claim(self, many: Sequence[r.Claim]) -> list[list[r.Claimed]]:
        return await self._writer.write(self._jobs.claim, many)

    async def start(self, many: Sequence[r.Start]) -> list[bool]:
        return await self._writer.write(self._jobs.start, many)

    async def finish(self, many: Sequence[r.Finish]) -> list[r.Finished]:
        return await self._writer.write(self._jobs.finish, many)

    async def release(self, many: Sequence[r.Release]) -> list[r.Released]:
        return await self._writer.write(self._jobs.release, many)

    async def cancel(self, many: Sequence[r.Selected]) -> list[r.Cancelled]:
        return await self._writer.write(self._jobs.cancel, many)

    async def retry(self, many: Sequence[r.Selected]) -> list[r.Retried]:
        return await self._writer.write(self._jobs.retry, many)

    async def forget(self, jobs: Sequence[str]) -> None:
        await self._writer.write(self._jobs.forget, jobs)

    async def forget_keys(self, before: float) -> int:
        return (await self._writer.write(self._jobs.forget_keys, [before]))[0]

    async def job(self, job: str) -> r.JobRow | None:
        return await self._read(reads.job, job)

    async def jobs(self, query: r.JobQuery) -> list[r.JobRow]:
        return await self._read(reads.jobs, query)

    async def attempts(self, job: str) -> list[r.AttemptRow]:
        return await self._read(reads.attempts, job)

    async def specs(self, jobs: Sequence[str]) -> dict[str, bytes]:
        return await self._read(reads.specs, jobs)

    async def counts(self, experiment: str | None, batch: str | None) -> dict[JobState, int]:
        return await self._read(reads.counts, experiment, batch)

    async def waiting_ahead(self, row: r.JobRow) -> int:
        return await self._read(reads.waiting_ahead, row)

    async def finished_before(self, at: float, limit: int) -> list[tuple[str, int]]:
        return await self._read(reads.finished_before, at, limit)

    async def classes(self) -> list[RequirementClass]:
        return await self._read(reads.classes)

    async def waiting(self) -> list[r.Waiting]:
        return await self._read(reads.waiting)

    async def open_leases(self) -> list[r.OpenLease]:
        return await self._read(reads.open_leases)

    async def upstream_due(self, experiment: str, limit: int) -> list[r.UpstreamDue]:
        return await self._read(reads.upstream_due, experiment, limit)

    async def upstream_open(self, experiment: str) -> list[tuple[str, str]]:
        return await self._read(reads.upstream_open, experiment)

    async def upstream_told(self, told: Sequence[tuple[str, JobState]]) -> None:
        await self._writer.write(self._jobs.told, told)

    # Pilots and hosts

    async def enrol(self, many: Sequence[NewPilot]) -> list[Enrolled]:
        return await self._writer.write(self._fleet.enrol, many)

    async def change_pilots(self, many: Sequence[PilotChange]) -> None:
        await self._writer.write(self._fleet.change_pilots, many)

    async def retire(self, many: Sequence[Retire]) -> list[list[r.Released]]:
        return await self._writer.write(self._fleet.retire, many)

    async def pilot(self, pilot: str) -> PilotRow | None:
        return await self._read(reads.pilot, pilot)

    async def pilots(
        self,
        *,
        host: str | None = None,
        retired: bool | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[PilotRow]:
        return await self._read(reads.pilots, host, retired, before, limit)

    async def holders(self) -> list[PilotRow]:
        return await self._read(reads.holders)

    async def drain(self, many: Sequence[DrainRow]) -> None:
        await self._writer.write(self._fleet.drain, many)

    async def undrain(self, many: Sequence[str]) -> list[bool]:
        return await self._writer.write(self._fleet.undrain, many)

    async def drains(self) -> list[DrainRow]:
        return await self._read(reads.drains)

    async def ban(self, host: str, reason: str, banned: bool) -> bool:
        return (await self._writer.write(self._fleet.ban, [(host, reason, banned)]))[0]

    async def host(self, host: str) -> HostRow | None:
        return await self._read(reads.host, host)

    async def hosts(self, *, before: str | None = None, limit: int = 100) -> list[HostRow]:
        return await self._read(reads.hosts, before, limit)

    async def add_enrolments(self, many: Sequence[EnrolmentRow]) -> None:
        await self._writer.write(self._fleet.add_enrolments, many)

    async def revoke_enrolment(self, enrolment: str) -> bool:
        return (await self._writer.write(self._fleet.revoke_enrolment, [enrolment]))[0]

    async def enrolments(self) -> list[EnrolmentRow]:
        return await self._read(reads.enrolments)

    # Receipts, tokens, journal

    async def receipts(
        self, experiment: str | None, after: int, limit: int
    ) -> list[tuple[int, Receipt]]:
        return await self._read(reads.receipts, experiment, after, limit)

    async def receipts_due(self, launcher_key: str, limit: int) -> list[Receipt]:
        return await self._read(reads.receipts_due, launcher_key, limit)

    async def receipts_kept(self, launcher_key: str, ids: Sequence[str]) -> None:
        await self._writer.write(self._fleet.receipts_kept, [(launcher_key, item) for item in ids])

    async def ledger(self, experiment: str | None) -> r.Ledger:
        return await self._read(reads.ledger, experiment)

    async def credit(self, query: CreditQuery) -> list[CreditRow]:
        return await self._read(reads.credit, query)

    async def add_token(self, token: r.TokenRow) -> None:
        await self._writer.write(self._fleet.add_token, [token])

    async def revoke_token(self, token_id: str) -> bool:
        return (await self._writer.write(self._fleet.revoke_token, [token_id]))[0]

    async def tokens(self) -> list[r.TokenRow]:
        return await self._read(reads.tokens)

    async def token(self, sha256: str) -> r.TokenRow | None:
        return await self._read(reads.token, sha256)

    async def append_journal(self, entry: r.JournalEntry, keep: int) -> int:
        await self._writer.write(self._fleet.append_journal, [(entry, keep)])
        return entry.first

    async def journal(self, after: int, limit: int) -> list[r.JournalEntry]:
        return await self._read(reads.journal, after, limit)

    async def journal_last(self) -> int:
        return await self._read(reads.journal_last)


def _keep_private(path: Path) -> None:
    """Jobs carry their owners' secrets. SQLite gives -wal and -shm the rights of the file."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:  # not opened here: to close it would undo SQLite's locks
        status = path.stat()
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            path.chmod(0o600)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date; each step is one transaction."""
    steps = _migrations()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise StoreError(
            f"the database has schema {version}, this program knows {len(steps)}",
            remedy="use the newer program that wrote it, or restore a backup from before",
            code=ErrorCode.CONFLICT,
        )
    for number, script in enumerate(steps, start=1):
        if number > version:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )


def _migrations() -> list[str]:
    folder = resources.files("job_manager_adapter.store") / "migrations"
    files = {item.name: item for item in folder.iterdir() if _MIGRATION.match(item.name)}
    return [files[name].read_text("utf-8") for name in sorted(files)]


def _integrity(connection: sqlite3.Connection) -> list[str]:
    rows = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
    return [] if rows == ["ok"] else rows
