"""Several managers on one database: who lives, whose pilots are whose, what they tell each other.

A manager is a row in `managers` and an advisory lock of that number, held by its listening
connection. PostgreSQL frees the lock when the process or its computer is gone; then another manager
takes over its pilots. A pilot is the manager's that it attached to last.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from job_manager_adapter.store import postgres_reads as reads
from job_manager_adapter.store.fleet_records import Holdings
from job_manager_adapter.store.postgres_endings import columns
from job_manager_adapter.store.postgres_group import FAILURES, GroupWriter, store_error
from job_manager_adapter.store.postgres_link import Link
from job_manager_adapter.store.postgres_news import CHANNEL, Me, read
from job_manager_adapter.store.records import NewsRecount, OpenLease, PeerNews

log = logging.getLogger(__name__)
MANAGER, LEADER = 0x636F7001, 0x636F7002
"""Classes of advisory locks, beside the manager's number."""
TEND_TIMEOUT = 10.0
PATIENCE_SECONDS = 5.0
"""A manager whose lock is free for so long is dead; it may only have lost its connection."""
Reading = Callable[[], AbstractAsyncContextManager[Any]]
"""Gives a connection to read; raises StoreError."""

_FREE = """
SELECT number FROM managers WHERE number <> $1 AND NOT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $2 AND objid = number::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
_BURY = """
WITH dead AS MATERIALIZED (
    SELECT number FROM managers WHERE number = ANY($1::int[])
        AND pg_try_advisory_xact_lock($2, number)
), buried AS (
    DELETE FROM managers WHERE number IN (SELECT number FROM dead)
)
UPDATE pilots SET manager = $3 WHERE manager IN (SELECT number FROM dead) AND NOT retired
RETURNING id"""
_TAKE = f"""
WITH here AS MATERIALIZED (
    SELECT id, manager FROM pilots WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
), moved AS (
    UPDATE pilots p SET manager = $2 FROM here
    WHERE p.id = here.id AND here.manager IS DISTINCT FROM $2 RETURNING p.id, here.manager
)
SELECT id, CASE WHEN manager IS NOT NULL THEN
    pg_notify('{CHANNEL}_' || manager, json_build_object('moved', id)::text)::text END
FROM moved"""  # noqa: S608 - a constant


class PostgresPeers:
    """A `store.base.PeerStore`."""

    def __init__(self, link: Link, writer: GroupWriter, me: Me, reading: Reading) -> None:
        self._link = link
        self._writer = writer
        self._me = me
        self._reading = reading
        self._name = ""
        self._connection: Any = None
        self._leading = False
        self._free_since: dict[int, float] = {}
        self._fresh = True
        """Has not looked for the dead: whoever comes into an empty house need not wait."""
        self._news: asyncio.Queue[PeerNews] = asyncio.Queue()

    # Being there

    async def join(self, name: str) -> None:
        """Raises StoreError."""
        self._name = name
        try:
            await self._connect()
        except FAILURES as error:
            raise store_error(error) from None

    async def agree(self, fact: str, value: str) -> str:
        (agreed,) = await self._writer.write(self._agree, [(fact, value)])
        return agreed

    async def _agree(self, connection: Any, many: Sequence[tuple[str, str]]) -> list[str]:
        for fact, value in many:
            await connection.execute(
                "INSERT INTO facts VALUES ($1, $2) ON CONFLICT DO NOTHING", fact, value
            )
        sql = "SELECT value FROM facts WHERE name = $1"
        return [await connection.fetchval(sql, fact) for fact, _ in many]

    async def _connect(self) -> None:
        connection = await self._link.connect("peers")
        first = not self._me.number
        try:
            async with asyncio.timeout(30), connection.transaction():
                adopted = await self._register(connection)
            for channel in (CHANNEL, f"{CHANNEL}_{self._me.number}"):
                await connection.add_listener(channel, self._heard)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        if not first:
            self._news.put_nowait(NewsRecount(adopted))

    async def _register(self, connection: Any) -> bool:
        """Whether others had taken this manager for dead. The row is seen with the lock held."""
        lock = "SELECT pg_advisory_lock($1, $2)"
        if not self._me.number:
            number = await connection.fetchval(
                "INSERT INTO managers (name, started_at) VALUES ($1, $2) RETURNING number",
                self._name,
                time.time(),
            )
            await connection.execute(lock, MANAGER, number)
            self._me.number, self._me.part = number, number % 64
            return False
        await connection.execute(lock, MANAGER, self._me.number)
        done = await connection.execute(
            "INSERT INTO managers (number, name, started_at) OVERRIDING SYSTEM VALUE"
            " VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self._me.number,
            self._name,
            time.time(),
        )
        return bool(done == "INSERT 0 1")

    async def leave(self) -> None:
        """After a clean stop: the next manager need not wait."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(*FAILURES):
            await connection.close(timeout=2)

    @property
    def leading(self) -> bool:
        return self._leading and self._connection is not None and not self._connection.is_closed()

    async def tend(self) -> None:
        """Every few seconds: comes back after a broken connection, leads if nobody does.

        Raises StoreError while the database is away.
        """
        try:
            if self._connection is None or self._connection.is_closed():
                self._leading = False
                await self._connect()
            if self._leading:  # is the connection still good?
                await self._connection.execute("SELECT 1", timeout=TEND_TIMEOUT)
            else:
                self._leading = await self._connection.fetchval(
                    "SELECT pg_try_advisory_lock($1, 0)", LEADER, timeout=TEND_TIMEOUT
                )
        except FAILURES as error:
            await self.leave()
            raise store_error(error) from None

    # News

    async def news(self) -> PeerNews:
        """Waits for the next."""
        return await self._news.get()

    def recount(self) -> None:
        """The end of a transaction is unknown, or the dead left something."""
        self._news.put_nowait(NewsRecount())

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        try:
            news = read(payload, self._me)
        except (ValueError, TypeError) as error:  # whoever may NOTIFY here can do worse
            log.error("a message on channel %s is not ours: %s", CHANNEL, error)
            return
        if news is not None:
            self._news.put_nowait(news)

    # Pilots

    async def take(self, pilots: Sequence[str]) -> list[OpenLease]:
        """These are ours from now on; what they hold."""
        results = await self._writer.write(self._take, [(pilot,) for pilot in pilots])
        return [lease for leases in results for lease in leases]

    async def _take(self, connection: Any, many: Sequence[tuple[str]]) -> list[list[OpenLease]]:
        pilots = columns(many, 1)[0]
        await connection.fetch(_TAKE, pilots, self._me.number)
        held: dict[str, list[OpenLease]] = {pilot: [] for pilot in pilots}
        for lease in await reads.leases_of(connection, pilots):
            held[lease.pilot].append(lease)
        return [held.pop(pilot, []) for (pilot,) in many]

    async def has(self, pilot: str) -> bool:
        async with self._reading() as connection:
            sql = "SELECT manager = $2 FROM pilots WHERE id = $1"
            return bool(await connection.fetchval(sql, pilot, self._me.number))

    async def mine(self) -> Holdings:
        async with self._reading() as connection:
            rows = await connection.fetch(
                "SELECT id FROM pilots WHERE manager = $1 AND NOT retired", self._me.number
            )
            return await _holdings(connection, [row[0] for row in rows])

    async def post(self, note: str) -> None:
        await self._writer.write(self._post, [note])

    async def _post(self, connection: Any, many: Sequence[str]) -> list[None]:
        sql = "UPDATE managers SET note = $2 WHERE number = $1"
        await connection.execute(sql, self._me.number, many[-1])
        return [None] * len(many)

    async def notes(self) -> list[str]:
        async with self._reading() as connection:
            free = {row[0] for row in await connection.fetch(_FREE, 0, MANAGER)}
            rows = await connection.fetch("SELECT number, note FROM managers WHERE note <> ''")
        gone = free | {self._me.number}
        return [note for number, note in rows if number not in gone]

    async def dry(self, classes: Sequence[int]) -> list[int]:
        async with self._reading() as connection:
            return await reads.dry(connection, classes)

    async def adopt(self) -> None:
        """Raises StoreError."""
        async with self._reading() as connection:
            free = await connection.fetch(_FREE, self._me.number, MANAGER)
            others = await connection.fetchval("SELECT count(*) - 1 FROM managers")
        fresh, self._fresh = self._fresh, False
        now = time.monotonic()
        since = now - PATIENCE_SECONDS if fresh and len(free) == others else now
        self._free_since = {row[0]: self._free_since.get(row[0], since) for row in free}
        dead = [
            number for number, since in self._free_since.items() if now - since >= PATIENCE_SECONDS
        ]
        if not dead:
            return
        (pilots,) = await self._writer.write(self._bury, [dead])
        log.warning("managers %s are gone: %d pilots of theirs are ours", dead, len(pilots))
        if not fresh:  # else all is read anyway
            self.recount()

    async def _bury(self, connection: Any, many: Sequence[list[int]]) -> list[list[str]]:
        return [
            [row[0] for row in await connection.fetch(_BURY, dead, MANAGER, self._me.number)]
            for dead in many
        ]


async def _holdings(connection: Any, pilots: Sequence[str]) -> Holdings:
    """Of the pilots only those that hold something: the others come when they attach."""
    leases = await reads.leases_of(connection, pilots)
    holders = {lease.pilot for lease in leases}
    rows = await reads.pilots_of(connection, sorted(holders))
    return Holdings(tuple(pilots), tuple(rows), tuple(leases))


async def living(connection: Any) -> list[str]:
    """Names of the managers whose lock is held."""
    free = {row[0] for row in await connection.fetch(_FREE, 0, MANAGER)}
    rows = await connection.fetch("SELECT number, name FROM managers ORDER BY number")
    return [name for number, name in rows if number not in free]
