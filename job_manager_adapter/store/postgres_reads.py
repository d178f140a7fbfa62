"""Queries; they run beside the writer, on connections of a pool."""

from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.job import JobState, Requirements
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import rows as make
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.fleet_records import DrainRow, EnrolmentRow, HostRow, PilotRow
from job_manager_adapter.store.postgres_group import WAIT_FOR_WRITERS
from job_manager_adapter.store.records import (
    AttemptRow,
    JobQuery,
    JobRow,
    JournalEntry,
    Ledger,
    OpenLease,
    TokenRow,
    UpstreamDue,
    Waiting,
)

_JOB = """
SELECT sequence, id, batch, experiment, name, state, attempt, max_attempts, charged, uncharged,
    priority, class, pilot, failure_class, message, submitted_at, changed_at, labels, upstream
FROM jobs"""
_ATTEMPT = """
SELECT a.attempt, a.pilot, coalesce(p.host, ''), a.leased_at,
    CASE WHEN a.ended_at IS NULL THEN j.started_at ELSE a.started_at END,
    a.ended_at, a.outcome, a.failure_class, a.charged, a.accepted, a.exit_code, a.signal,
    a.message, a.usage, a.outputs, a.granted, a.late::json ->> 'outcome'
FROM jobs j JOIN attempts a ON a.job = j.sequence LEFT JOIN pilots p ON p.id = a.pilot
WHERE j.id = $1 ORDER BY a.attempt"""
_PILOT = """
SELECT p.id, p.host, p.enrolment, p.key, h.launcher_key, p.capabilities, p.enrolled_at, p.seen_at,
    p.retired, h.banned, p.paused, p.jobs_succeeded, p.jobs_failed
FROM pilots p JOIN hosts h ON h.id = p.host"""
_HOST = """
SELECT id, launcher_key, enrolment, label, banned, ban_reason, boots, jobs_succeeded, granted,
    seen_at FROM hosts"""
_ACCESS = "SELECT id, sha256, role, experiment, label, created_at, expires_at, revoked FROM tokens"
_LEASE = """
SELECT j.id, j.attempt, j.pilot, j.class, j.priority, j.pause_seconds, j.reference_cpu_seconds,
    a.leased_at, j.state = 'running'
FROM jobs j JOIN attempts a ON a.job = j.sequence AND a.attempt = j.attempt
LEFT JOIN pilots p ON p.id = j.pilot WHERE j.state IN ('leased', 'running')"""
_FINAL = "state IN ('succeeded', 'failed', 'cancelled')"


class Where:
    """Conditions and their values, numbered as PostgreSQL wants them."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._conditions = ["true"]

    def add(self, condition: str, *values: Any) -> None:
        """Each `%` in the condition stands for one value."""
        for value in values:
            condition = condition.replace("%", self.number(value), 1)
        self._conditions.append(condition)

    def number(self, value: Any) -> str:
        """Texts from outside may have zero bytes, which PostgreSQL's have not."""
        self.values.append(value.replace("\0", "\1") if isinstance(value, str) else value)
        return f"${len(self.values)}"

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


async def job(connection: Any, job_id: str) -> JobRow | None:
    row = await connection.fetchrow(f"{_JOB} WHERE id = $1", job_id)
    return make.job(row) if row else None


async def jobs(connection: Any, query: JobQuery) -> list[JobRow]:
    where = Where()
    for column in ("state", "experiment", "batch"):
        if (value := getattr(query, column)) is not None:
            where.add(f"{column} = %", value)
    for key, value in query.labels:
        where.add("labels ->> %::text = %", key, value)
    if query.after is not None:
        where.add("sequence < %" if query.newest else "sequence > %", query.after)
    order = "DESC" if query.newest else "ASC"
    limit = where.number(query.limit)
    sql = f"{_JOB} WHERE {where} ORDER BY sequence {order} LIMIT {limit}"
    return [make.job(row) for row in await connection.fetch(sql, *where.values)]


async def attempts(connection: Any, job_id: str) -> list[AttemptRow]:
    return [make.attempt(job_id, row) for row in await connection.fetch(_ATTEMPT, job_id)]


async def specs(connection: Any, ids: Sequence[str]) -> dict[str, bytes]:
    sql = "SELECT id, spec FROM jobs JOIN specs USING (sequence) WHERE id = ANY($1::text[])"
    return {row[0]: row[1] for row in await connection.fetch(sql, list(ids))}


async def counts(connection: Any, experiment: str | None, batch: str | None) -> dict[JobState, int]:
    where = Where()
    if experiment is not None:
        where.add("experiment = %", experiment)
    if batch is not None:
        where.add("batch = %", batch)
    sql = f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY state"  # noqa: S608
    return {JobState(state): count for state, count in await connection.fetch(sql, *where.values)}


async def waiting_ahead(connection: Any, row: JobRow) -> int:
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM jobs WHERE state = 'waiting'"
            " AND class IN (SELECT id FROM classes WHERE experiment = $1)"
            " AND (priority > $2 OR (priority = $2 AND sequence < $3))",
            row.experiment,
            row.priority,
            row.sequence,
        )
    )


async def finished_before(connection: Any, at: float, limit: int) -> list[tuple[str, int]]:
    rows = await connection.fetch(
        f"SELECT id, attempt FROM jobs WHERE {_FINAL} AND changed_at < $1"  # noqa: S608
        " AND (upstream IS NULL OR told IS NOT DISTINCT FROM state) ORDER BY sequence LIMIT $2",
        at,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def classes(connection: Any) -> list[RequirementClass]:
    rows = await connection.fetch("SELECT id, experiment, requirements FROM classes ORDER BY id")
    return [
        RequirementClass(number, experiment, Requirements.model_validate_json(requirements))
        for number, experiment, requirements in rows
    ]


async def waiting(connection: Any) -> list[Waiting]:
    rows = await connection.fetch(
        "SELECT class, priority, count(*), min(sequence) FROM jobs"
        " WHERE state = 'waiting' GROUP BY class, priority"
    )
    known = {klass.id: klass for klass in await classes(connection)}
    return [Waiting(known[row[0]], *row[1:]) for row in rows]


async def dry(connection: Any, numbers: Sequence[int]) -> list[int]:
    """Those of the classes in which nothing waits; cheap, however much waits in the others."""
    rows = await connection.fetch(
        "SELECT c.id FROM unnest($1::int[]) AS c(id) WHERE NOT EXISTS"
        " (SELECT FROM jobs WHERE state = 'waiting' AND class = c.id)",
        list(numbers),
    )
    return [row[0] for row in rows]


async def open_leases(connection: Any, manager: int) -> list[OpenLease]:
    """But for those of other managers' pilots."""
    sql = f"{_LEASE} AND (p.manager IS NULL OR p.manager = $1)"
    return [OpenLease(*row) for row in await connection.fetch(sql, manager)]


async def leases_of(connection: Any, pilots: Sequence[str]) -> list[OpenLease]:
    sql = f"{_LEASE} AND j.pilot = ANY($1::text[])"
    return [OpenLease(*row) for row in await connection.fetch(sql, list(pilots))]


async def upstream_due(connection: Any, experiment: str, limit: int) -> list[UpstreamDue]:
    rows = await connection.fetch(
        "SELECT id, upstream, state FROM jobs WHERE experiment = $1 AND upstream IS NOT NULL"
        " AND told IS DISTINCT FROM state ORDER BY sequence LIMIT $2",
        experiment,
        limit,
    )
    due = []
    for job_id, upstream, state in rows:
        tried = await attempts(connection, job_id)
        due.append(UpstreamDue(job_id, upstream, JobState(state), tried[-1] if tried else None))
    return due


async def upstream_open(connection: Any, experiment: str) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT id, upstream FROM jobs WHERE experiment = $1 AND upstream IS NOT NULL"
        " AND state IN ('waiting', 'leased', 'running') ORDER BY sequence",
        experiment,
    )
    return [(row[0], row[1]) for row in rows]


async def pilot(connection: Any, pilot_id: str) -> PilotRow | None:
    row = await connection.fetchrow(f"{_PILOT} WHERE p.id = $1", pilot_id)
    return make.pilot(row) if row else None


async def pilots(
    connection: Any,
    host: str | None,
    retired: bool | None,
    before: str | None,
    limit: int,
) -> list[PilotRow]:
    where = Where()
    conditions = (("p.host = %", host), ("p.retired = %", retired), ("p.id < %", before))
    for condition, value in conditions:
        if value is not None:
            where.add(condition, value)
    number = where.number(limit)
    sql = f"{_PILOT} WHERE {where} ORDER BY p.id DESC LIMIT {number}"
    return [make.pilot(row) for row in await connection.fetch(sql, *where.values)]


async def holders(connection: Any, manager: int) -> list[PilotRow]:
    """But for other managers' pilots."""
    held = "SELECT pilot FROM jobs WHERE state IN ('leased', 'running')"
    ours = "(p.manager IS NULL OR p.manager = $1)"
    sql = f"{_PILOT} WHERE NOT p.retired AND {ours} AND p.id IN ({held})"
    return [make.pilot(row) for row in await connection.fetch(sql, manager)]


async def pilots_of(connection: Any, ids: Sequence[str]) -> list[PilotRow]:
    sql = f"{_PILOT} WHERE p.id = ANY($1::text[])"
    return [make.pilot(row) for row in await connection.fetch(sql, list(ids))]


async def drains(connection: Any) -> list[DrainRow]:
    rows = await connection.fetch("SELECT scope, at, until FROM drains ORDER BY scope")
    return [DrainRow(*row) for row in rows]


async def host(connection: Any, host_id: str) -> HostRow | None:
    row = await connection.fetchrow(f"{_HOST} WHERE id = $1", host_id)
    return HostRow(*row) if row else None


async def hosts(connection: Any, before: str | None, limit: int) -> list[HostRow]:
    where = Where()
    if before is not None:
        where.add("id < %", before)
    sql = f"{_HOST} WHERE {where} ORDER BY id DESC LIMIT {where.number(limit)}"
    return [HostRow(*row) for row in await connection.fetch(sql, *where.values)]


async def enrolments(connection: Any) -> list[EnrolmentRow]:
    rows = await connection.fetch(
        "SELECT id, secret_sha256, label, created_at, expires_at, launchers_allowed, revoked,"
        " ARRAY(SELECT host FROM bindings WHERE enrolment = e.id) FROM enrolments e ORDER BY id"
    )
    return [EnrolmentRow(*(*row[:7], tuple(sorted(row[7])))) for row in map(tuple, rows)]


async def tokens(connection: Any) -> list[TokenRow]:
    return [TokenRow(*row) for row in await connection.fetch(f"{_ACCESS} ORDER BY id")]


async def token(connection: Any, sha256: str) -> TokenRow | None:
    row = await connection.fetchrow(f"{_ACCESS} WHERE sha256 = $1", sha256)
    return TokenRow(*row) if row else None


async def receipts(
    connection: Any, experiment: str | None, after: int, limit: int
) -> list[tuple[int, Receipt]]:
    where = Where()
    where.add("sequence > %", after)
    if experiment is not None:
        where.add("experiment = %", experiment)
    number = where.number(limit)
    sql = (
        f"SELECT sequence, body FROM receipts WHERE {where}"  # noqa: S608
        f" ORDER BY sequence LIMIT {number}"
    )
    async with connection.transaction():
        await connection.execute(WAIT_FOR_WRITERS)  # so that no lower number comes later
        rows = await connection.fetch(sql, *where.values)
    return [(number, Receipt.model_validate_json(body)) for number, body in rows]


async def receipts_due(connection: Any, launcher_key: str, limit: int) -> list[Receipt]:
    rows = await connection.fetch(
        "SELECT body FROM receipts WHERE launcher_key = $1 AND NOT kept ORDER BY sequence LIMIT $2",
        launcher_key,
        limit,
    )
    return [Receipt.model_validate_json(row[0]) for row in rows]


async def ledger(connection: Any, experiment: str | None) -> Ledger:
    where = Where()
    if experiment is not None:
        where.add("experiment = %", experiment)
    row = await connection.fetchrow(
        "SELECT coalesce(sum(granted), 0), coalesce(sum(receipts), 0)::bigint,"  # noqa: S608
        f" coalesce(sum(cpu_seconds), 0) FROM ledger WHERE {where}",
        *where.values,
    )
    return Ledger(*row)


async def credit(connection: Any, query: CreditQuery) -> list[CreditRow]:
    where = Where()
    where.add('(r.enrolment, r.experiment COLLATE "C") > (%, %)', *query.after)
    if query.experiment is not None:
        where.add("r.experiment = %", query.experiment)
    if query.since is not None:
        where.add("r.accepted_at >= %", query.since)
    if query.until is not None:
        where.add("r.accepted_at < %", query.until)
    rows = await connection.fetch(
        "SELECT r.enrolment, r.experiment, coalesce(min(e.label), ''), sum(r.granted),"  # noqa: S608
        " sum(r.cpu_seconds), count(*), min(r.accepted_at), max(r.accepted_at)"
        f" FROM receipts r LEFT JOIN enrolments e ON e.id = r.enrolment WHERE {where}"
        ' GROUP BY r.enrolment, r.experiment ORDER BY r.enrolment, r.experiment COLLATE "C"'
        f" LIMIT {where.number(query.limit)}",
        *where.values,
    )
    return [CreditRow(*row) for row in rows]


async def journal(connection: Any, after: int, limit: int) -> list[JournalEntry]:
    rows = await connection.fetch(
        "SELECT first, last, body FROM journal WHERE last > $1 ORDER BY last LIMIT $2",
        after,
        limit,
    )
    return [JournalEntry(*row) for row in rows]


async def journal_last(connection: Any) -> int:
    return int(await connection.fetchval("SELECT coalesce(max(last), 0) FROM journal"))
