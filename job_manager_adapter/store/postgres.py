"""PostgreSQL as store, for several managers at once: a writer with group commit, readers beside."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from copilot_agent.protocol.job import JobState
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import postgres_reads as reads
from job_manager_adapter.store import records as r
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
from job_manager_adapter.store.postgres_classes import Classes
from job_manager_adapter.store.postgres_dump import dump
from job_manager_adapter.store.postgres_fleet import FleetWrites
from job_manager_adapter.store.postgres_group import FAILURES, GroupWriter, store_error
from job_manager_adapter.store.postgres_jobs import JobWrites
from job_manager_adapter.store.postgres_link import WRITER, Link, migrate
from job_manager_adapter.store.postgres_news import Me
from job_manager_adapter.store.postgres_peers import PostgresPeers, living
from job_manager_adapter.store.postgres_submit import Submissions

AGAIN_SECONDS = 0.2
"""A query that fails is tried again for so long."""
CLOSE_SECONDS = 5.0
READERS = 4
"""Connections that read, so that a long list does not hold up a pilot that attaches."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class PostgresStore:
    """A `store.base.Store`; `peers` is its `store.base.PeerStore`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link = Link(url)
        self._me = Me()
        classes = Classes()
        self._submissions = Submissions(classes, self._me)
        self._jobs = JobWrites(classes, self._me)
        self._writer = GroupWriter(self._connect, self._broken, last=self._jobs.claim)
        self._aside = GroupWriter(self._connect)
        """For what nobody waits for, so that no report waits for it."""
        self._fleet = FleetWrites(self._jobs, self._me)
        self._pool: Any = None
        self.peers = PostgresPeers(self._link, self._writer, self._me, self.reading)

    @property
    def stats(self) -> StoreStats:
        return self._writer.stats

    async def open(self) -> None:
        await migrate(self._link)
        self._pool = await self._link.pool("readers", READERS)

    async def close(self) -> None:
        await self._writer.close()
        await self._aside.close()
        await self.peers.leave()
        if self._pool is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def _connect(self) -> Any:
        return await self._link.connect("writer", WRITER)

    def _broken(self) -> None:
        self.peers.recount()

    async def backup(self, target: Path) -> None:
        await dump(self._url, target)

    async def check(self) -> list[str]:
        """PostgreSQL looks after its own integrity; that it answers is what is asked here."""
        await self.journal_last()
        return []

    async def describe(self) -> str:
        """Version, size and living managers, for people."""
        async with self.reading() as connection:
            version, size = await connection.fetchrow(
                "SELECT current_setting('server_version'),"
                " pg_size_pretty(pg_database_size(current_database()))"
            )
            managers = await living(connection)
        return "; ".join([f"PostgreSQL {version}, {size}", *map("manager {}".format, managers)])

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Any]:
        """A connection to read; raises StoreError."""
        try:
            async with self._pool.acquire(timeout=10) as connection:
                yield connection
        except FAILURES as error:
            raise store_error(error) from None

    async def _read(
        self,
        query: Callable[Concatenate[Any, _P], Awaitable[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        until = time.monotonic() + AGAIN_SECONDS
        while True:
            try:
                async with self.reading() as connection:
                    return await query(connection, *args, **kwargs)
            except StoreError:  # of connections, perhaps: a restarted server ends them all
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(AGAIN_SECONDS / 2)

    # Jobs

    async def submit(self, many: Sequence[r.Submission]) -> list[r.Submitted]:
        return await self._writer.write(self._submissions.submit, many)

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
        return await self._read(reads.open_leases, self._me.number)

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
        return await self._read(reads.holders, self._me.number)

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
        await self._aside.write(self._fleet.receipts_kept, [(launcher_key, item) for item in ids])

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
        return (await self._aside.write(self._fleet.append_journal, [(entry, keep)]))[0]

    async def journal(self, after: int, limit: int) -> list[r.JournalEntry]:
        return await self._read(reads.journal, after, limit)

    async def journal_last(self) -> int:
        return await self._read(reads.journal_last)
