"""Changes to pilots, hosts, enrolments, receipts, tokens and the journal, inside the writer."""

from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.store.fleet_records import (
    DrainRow,
    Enrolled,
    EnrolmentRow,
    NewPilot,
    PilotChange,
    Retire,
)
from job_manager_adapter.store.postgres_endings import columns
from job_manager_adapter.store.postgres_jobs import JobWrites
from job_manager_adapter.store.postgres_news import CHANNEL, Me, tell
from job_manager_adapter.store.records import JournalEntry, Release, Released, TokenRow
from job_manager_adapter.store.refusals import check_host, check_key, check_secret, refused

_HELD = """
SELECT p.pilot, j.id, j.attempt FROM unnest($1::text[]) WITH ORDINALITY AS p(pilot, ord)
JOIN jobs j ON j.pilot = p.pilot AND j.state IN ('leased', 'running') ORDER BY p.ord, j.sequence"""
_RETIRE = f"""
WITH undrained AS (
    DELETE FROM drains WHERE scope = ANY($1::text[])
), retired AS (
    UPDATE pilots SET retired = true, paused = false WHERE id = ANY($1::text[])
    RETURNING id, manager
)
SELECT pg_notify('{CHANNEL}_' || manager, json_build_object('retired', id)::text)
FROM retired WHERE manager <> $2"""  # noqa: S608 - a constant
_CHANGE = """
UPDATE pilots p SET capabilities = coalesce(c.capabilities, p.capabilities),
    paused = coalesce(c.paused, p.paused), seen_at = coalesce(c.seen_at, p.seen_at)
FROM unnest($1::text[], $2::text[], $3::bool[], $4::float8[])
    AS c(pilot, capabilities, paused, seen_at) WHERE p.id = c.pilot"""
_HOSTS_SEEN = """
UPDATE hosts h SET seen_at = s.seen_at FROM (
    SELECT p.host, max(c.seen_at) AS seen_at FROM unnest($1::text[], $2::float8[]) AS c(pilot, seen_at)
    JOIN pilots p ON p.id = c.pilot WHERE c.seen_at IS NOT NULL GROUP BY p.host
) s WHERE h.id = s.host"""  # noqa: E501
_DRAIN = """
INSERT INTO drains (scope, at, until) VALUES ($1, $2, $3)
ON CONFLICT (scope) DO UPDATE SET at = excluded.at, until = excluded.until"""
_HOST = """
INSERT INTO hosts (id, launcher_key, enrolment, label, boots, seen_at)
VALUES ($1, $2, $3, $4, 1, $5)
ON CONFLICT (launcher_key) DO UPDATE SET enrolment = excluded.enrolment, label = excluded.label,
    boots = hosts.boots + 1, seen_at = excluded.seen_at"""
_BIND = """
INSERT INTO bindings VALUES ($1, $2, 1)
ON CONFLICT (enrolment, host) DO UPDATE SET boots = bindings.boots + 1"""


class FleetWrites:
    """The operations of `store.base.FleetStore` and below that change something."""

    def __init__(self, jobs: JobWrites, me: Me) -> None:
        self._jobs = jobs
        self._me = me

    # Enrolment

    async def enrol(self, connection: Any, many: Sequence[NewPilot]) -> list[Enrolled]:
        return [await self._enrol(connection, pilot) for pilot in many]

    async def _enrol(self, connection: Any, pilot: NewPilot) -> Enrolled:
        enrolment = await connection.fetchrow(
            "SELECT id, label, expires_at, launchers_allowed, revoked FROM enrolments"
            " WHERE secret_sha256 = $1 FOR UPDATE",
            pilot.secret_sha256,
        )
        await _one_at_a_time(connection, pilot.launcher_key)
        host = await connection.fetchrow(
            "SELECT id, banned, ban_reason FROM hosts WHERE launcher_key = $1", pilot.launcher_key
        )
        refusal = check_secret(enrolment, pilot.at) or check_host(host)
        if refusal:
            return refusal
        host_id = host[0] if host else pilot.host
        used = await connection.fetchval(
            "SELECT 1 FROM pilots WHERE host = $1 AND key = $2 AND seen_at IS NOT NULL LIMIT 1",
            host_id,
            pilot.key,
        )
        refusal = check_key(used) or await self._bind(
            connection, enrolment[0], enrolment[3], host_id, pilot.max_boots
        )
        if refusal:
            return refusal
        launcher, (number, label) = pilot.launcher_key, enrolment[:2]
        await connection.execute(_HOST, host_id, launcher, number, label, pilot.at)
        return await self._replace(connection, pilot, host_id, number)

    async def _bind(
        self, connection: Any, enrolment: str, allowed: int, host: str, boots: int
    ) -> Enrolled | None:
        """Counts a boot; the reason of a refusal if there is no place for this launcher."""
        rows = await connection.fetch(
            "SELECT host, boots FROM bindings WHERE enrolment = $1", enrolment
        )
        bound = {row[0]: row[1] for row in rows}
        if host not in bound and len(bound) >= allowed:
            return refused("the secret is bound to another launcher")
        if bound.get(host, 0) >= boots:
            return refused(f"the launcher has used this secret for {boots} boots")
        await connection.execute(_BIND, enrolment, host)
        return None

    async def _replace(
        self, connection: Any, pilot: NewPilot, host: str, enrolment: str
    ) -> Enrolled:
        rows = await connection.fetch(
            "SELECT id FROM pilots WHERE host = $1 AND NOT retired ORDER BY id", host
        )
        earlier = tuple(row[0] for row in rows)
        message = "its launcher started a new pilot"
        leaving = Retire(earlier, FailureClass.VOLUNTEER_LEFT, message, pilot.at)
        released = await self._retire(connection, leaving) if earlier else []
        await connection.execute(
            "INSERT INTO pilots (id, host, enrolment, key, capabilities, enrolled_at)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            pilot.id,
            host,
            enrolment,
            pilot.key,
            pilot.capabilities.model_dump_json(),
            pilot.at,
        )
        return Enrolled(None, "", host, enrolment, earlier, tuple(released))

    # Pilots and hosts

    async def retire(self, connection: Any, many: Sequence[Retire]) -> list[list[Released]]:
        return [await self._retire(connection, item) for item in many]

    async def _retire(self, connection: Any, item: Retire) -> list[Released]:
        """Retired before what it holds is read: no claim for it can come between."""
        await connection.fetch(_RETIRE, list(item.pilots), self._me.number)
        held = [
            Release(job, attempt, item.failure_class, item.message, item.at)
            for _, job, attempt in await connection.fetch(_HELD, list(item.pilots))
        ]
        return await self._jobs.release(connection, held)

    async def change_pilots(self, connection: Any, many: Sequence[PilotChange]) -> list[None]:
        """Later changes of the same pilot come on top of earlier ones."""
        merged: dict[str, list[Any]] = {}
        for change in many:
            row = merged.setdefault(change.pilot, [None, None, None])
            capabilities = change.capabilities and change.capabilities.model_dump_json()
            news = (capabilities, change.paused, change.seen_at)
            row[:] = [old if new is None else new for old, new in zip(row, news, strict=True)]
        rows = [(pilot, *merged[pilot]) for pilot in sorted(merged)]
        await connection.execute(_CHANGE, *columns(rows, 4))
        seen = [(row[0], row[3]) for row in rows if row[3] is not None]
        if seen:
            await connection.execute(_HOSTS_SEEN, *columns(seen, 2))
        return [None] * len(many)

    async def drain(self, connection: Any, many: Sequence[DrainRow]) -> list[None]:
        for row in many:
            await connection.execute(_DRAIN, row.scope, row.at, row.until)
        await self._tell(connection, "drains")
        return [None] * len(many)

    async def undrain(self, connection: Any, many: Sequence[str]) -> list[bool]:
        results = [
            await connection.execute("DELETE FROM drains WHERE scope = $1", scope) == "DELETE 1"
            for scope in many
        ]
        await self._tell(connection, "drains")
        return results

    async def _tell(self, connection: Any, what: str, value: int = 0) -> None:
        if self._me.number:
            await tell(connection, CHANNEL, {"from": self._me.number, what: value})

    async def ban(self, connection: Any, many: Sequence[tuple[str, str, bool]]) -> list[bool]:
        sql = "UPDATE hosts SET banned = $3, ban_reason = $2 WHERE id = $1"
        return [
            await connection.execute(sql, host, reason.replace("\0", ""), banned) == "UPDATE 1"
            for host, reason, banned in many
        ]

    # Enrolments, tokens, receipts, journal

    async def add_enrolments(self, connection: Any, many: Sequence[EnrolmentRow]) -> list[None]:
        await connection.executemany(
            "INSERT INTO enrolments VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                (
                    row.id,
                    row.secret_sha256,
                    row.label,
                    row.created_at,
                    row.expires_at,
                    row.launchers_allowed,
                    row.revoked,
                )
                for row in many
            ],
        )
        return [None] * len(many)

    async def revoke_enrolment(self, connection: Any, many: Sequence[str]) -> list[bool]:
        sql = "UPDATE enrolments SET revoked = true WHERE id = $1"
        return [await connection.execute(sql, item) == "UPDATE 1" for item in many]

    async def add_token(self, connection: Any, many: Sequence[TokenRow]) -> list[None]:
        await connection.executemany(
            "INSERT INTO tokens VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [
                (
                    row.id,
                    row.sha256,
                    row.role,
                    row.experiment,
                    row.label,
                    row.created_at,
                    row.expires_at,
                    row.revoked,
                )
                for row in many
            ],
        )
        return [None] * len(many)

    async def revoke_token(self, connection: Any, many: Sequence[str]) -> list[bool]:
        sql = "UPDATE tokens SET revoked = true WHERE id = $1"
        return [await connection.execute(sql, item) == "UPDATE 1" for item in many]

    async def receipts_kept(self, connection: Any, many: Sequence[tuple[str, str]]) -> list[None]:
        await connection.execute(
            "UPDATE receipts r SET kept = true"
            " FROM unnest($1::text[], $2::text[]) AS k(launcher, id)"
            " WHERE r.launcher_key = k.launcher AND r.id = k.id AND NOT r.kept",
            *columns(many, 2),
        )
        return [None] * len(many)

    async def append_journal(
        self, connection: Any, many: Sequence[tuple[JournalEntry, int]]
    ) -> list[int]:
        """Managers write one journal: an entry's numbers are moved behind what is there."""
        await _one_at_a_time(connection, "journal")
        last = await connection.fetchval("SELECT coalesce(max(last), 0) FROM journal")
        firsts = []
        for entry, keep in many:
            first = max(entry.first, last + 1)
            last = first + entry.last - entry.first
            await connection.execute(
                "INSERT INTO journal (last, first, body) VALUES ($1, $2, $3)",
                last,
                first,
                entry.body,
            )
            await connection.execute("DELETE FROM journal WHERE last < $1", last - keep)
            firsts.append(first)
        await self._tell(connection, "events", last)
        return firsts


async def _one_at_a_time(connection: Any, what: str) -> None:
    """Until the end of this transaction nobody else does the same."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('copilot.' || $1, 0))", what
    )
