"""Queries; they run on a connection of their own beside the writer."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.job import JobState, Requirements
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import rows as make
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.fleet_records import DrainRow, EnrolmentRow, HostRow, PilotRow
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

Row = tuple[Any, ...]
_JOB = """
SELECT sequence, id, batch, experiment, name, state, attempt, max_attempts, charged, uncharged,
    priority, class, pilot, failure_class, message, submitted_at, changed_at, labels, upstream
FROM jobs"""
_ATTEMPT = """
SELECT a.attempt, a.pilot, ifnull(p.host, ''), a.leased_at,
    CASE WHEN a.ended_at IS NULL THEN j.started_at ELSE a.started_at END,
    a.ended_at, a.outcome, a.failure_class, a.charged, a.accepted, a.exit_code, a.signal,
    a.message, a.usage, a.outputs, a.granted,
    json_extract(a.late, '$.outcome')
FROM jobs j JOIN attempts a ON a.job = j.sequence LEFT JOIN pilots p ON p.id = a.pilot
WHERE j.id = ? ORDER BY a.attempt"""
_PILOT = """
SELECT p.id, p.host, p.enrolment, p.key, h.launcher_key, p.capabilities, p.enrolled_at, p.seen_at,
    p.retired, h.banned, p.paused, p.jobs_succeeded, p.jobs_failed
FROM pilots p JOIN hosts h ON h.id = p.host"""
_HOST = """
SELECT id, launcher_key, enrolment, label, banned, ban_reason, boots, jobs_succeeded, granted,
    seen_at FROM hosts"""
_ACCESS = "SELECT id, sha256, role, experiment, label, created_at, expires_at, revoked FROM tokens"
_FINAL = "state IN ('succeeded', 'failed', 'cancelled')"


def job(connection: sqlite3.Connection, job_id: str) -> JobRow | None:
    row = connection.execute(f"{_JOB} WHERE id = ?", (job_id,)).fetchone()
    return make.job(row) if row else None


def jobs(connection: sqlite3.Connection, query: JobQuery) -> list[JobRow]:
    where, values = ["1"], []
    for column in ("state", "experiment", "batch"):
        if (value := getattr(query, column)) is not None:
            where.append(f"{column} = ?")
            values.append(value)
    for key, value in query.labels:
        where.append("EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ? AND value = ?)")
        values += [key, value]
    if query.after is not None:
        where.append("sequence < ?" if query.newest else "sequence > ?")
        values.append(query.after)
    order = "DESC" if query.newest else "ASC"
    sql = f"{_JOB} WHERE {' AND '.join(where)} ORDER BY sequence {order} LIMIT ?"
    return [make.job(row) for row in connection.execute(sql, [*values, query.limit])]


def attempts(connection: sqlite3.Connection, job_id: str) -> list[AttemptRow]:
    return [make.attempt(job_id, row) for row in connection.execute(_ATTEMPT, (job_id,))]


def specs(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, bytes]:
    sql = "SELECT spec FROM jobs JOIN specs USING (sequence) WHERE id = ?"
    found = ((item, connection.execute(sql, (item,)).fetchone()) for item in ids)
    return {item: row[0] for item, row in found if row}


def counts(
    connection: sqlite3.Connection, experiment: str | None, batch: str | None
) -> dict[JobState, int]:
    by_batch = "1" if batch is None else "batch = ?2"  # so that the index is used
    rows = connection.execute(
        "SELECT state, count(*) FROM jobs WHERE (?1 IS NULL OR experiment = ?1)"  # noqa: S608
        f" AND {by_batch} AND (?2 IS NULL OR 1) GROUP BY state",
        (experiment, batch),
    )
    return {JobState(state): count for state, count in rows}


def waiting_ahead(connection: sqlite3.Connection, row: JobRow) -> int:
    ahead = connection.execute(
        "SELECT count(*) FROM jobs JOIN classes ON classes.id = jobs.class"
        " WHERE state = 'waiting' AND class IN (SELECT id FROM classes WHERE experiment = ?1)"
        " AND (priority > ?2 OR (priority = ?2 AND sequence < ?3))",
        (row.experiment, row.priority, row.sequence),
    ).fetchone()
    return int(ahead[0])


def finished_before(connection: sqlite3.Connection, at: float, limit: int) -> list[tuple[str, int]]:
    return connection.execute(
        f"SELECT id, attempt FROM jobs WHERE {_FINAL} AND changed_at < ?"  # noqa: S608
        " AND (upstream IS NULL OR told IS state) ORDER BY sequence LIMIT ?",
        (at, limit),
    ).fetchall()


def classes(connection: sqlite3.Connection) -> list[RequirementClass]:
    rows = connection.execute("SELECT id, experiment, requirements FROM classes")
    return [
        RequirementClass(number, experiment, Requirements.model_validate_json(requirements))
        for number, experiment, requirements in rows
    ]


def waiting(connection: sqlite3.Connection) -> list[Waiting]:
    known = {klass.id: klass for klass in classes(connection)}
    rows = connection.execute(
        "SELECT class, priority, count(*), min(sequence) FROM jobs INDEXED BY jobs_waiting"
        " WHERE state = 'waiting' GROUP BY class, priority"
    )
    return [Waiting(known[row[0]], *row[1:]) for row in rows]


def open_leases(connection: sqlite3.Connection) -> list[OpenLease]:
    rows = connection.execute(
        "SELECT j.id, j.attempt, j.pilot, j.class, j.priority, j.pause_seconds,"
        " j.reference_cpu_seconds, a.leased_at, j.state = 'running' FROM jobs j"
        " JOIN attempts a ON a.job = j.sequence AND a.attempt = j.attempt"
        " WHERE j.state IN ('leased', 'running')"
    )
    return [OpenLease(*(*row[:8], bool(row[8]))) for row in rows]


def upstream_due(connection: sqlite3.Connection, experiment: str, limit: int) -> list[UpstreamDue]:
    rows = connection.execute(
        "SELECT id, upstream, state FROM jobs WHERE experiment = ? AND upstream IS NOT NULL"
        " AND told IS NOT state ORDER BY sequence LIMIT ?",
        (experiment, limit),
    ).fetchall()
    due = []
    for job_id, upstream, state in rows:
        tried = attempts(connection, job_id)
        due.append(UpstreamDue(job_id, upstream, JobState(state), tried[-1] if tried else None))
    return due


def upstream_open(connection: sqlite3.Connection, experiment: str) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT id, upstream FROM jobs WHERE experiment = ? AND upstream IS NOT NULL"
        " AND state IN ('waiting', 'leased', 'running')",
        (experiment,),
    ).fetchall()


def pilot(connection: sqlite3.Connection, pilot_id: str) -> PilotRow | None:
    row = connection.execute(f"{_PILOT} WHERE p.id = ?", (pilot_id,)).fetchone()
    return make.pilot(row) if row else None


def pilots(
    connection: sqlite3.Connection,
    host: str | None,
    retired: bool | None,
    before: str | None,
    limit: int,
) -> list[PilotRow]:
    where, values = ["1"], []
    conditions = (("p.host = ?", host), ("p.retired = ?", retired), ("p.id < ?", before))
    for condition, value in conditions:
        if value is not None:
            where.append(condition)
            values.append(value)
    sql = f"{_PILOT} WHERE {' AND '.join(where)} ORDER BY p.id DESC LIMIT ?"
    return [make.pilot(row) for row in connection.execute(sql, [*values, limit])]


def holders(connection: sqlite3.Connection) -> list[PilotRow]:
    held = "SELECT pilot FROM jobs WHERE state IN ('leased', 'running')"
    sql = f"{_PILOT} WHERE p.retired = 0 AND p.id IN ({held})"
    return [make.pilot(row) for row in connection.execute(sql)]


def drains(connection: sqlite3.Connection) -> list[DrainRow]:
    rows = connection.execute("SELECT scope, at, until FROM drains ORDER BY scope")
    return [DrainRow(*row) for row in rows]


def host(connection: sqlite3.Connection, host_id: str) -> HostRow | None:
    row = connection.execute(f"{_HOST} WHERE id = ?", (host_id,)).fetchone()
    return _host(row) if row else None


def hosts(connection: sqlite3.Connection, before: str | None, limit: int) -> list[HostRow]:
    sql = f"{_HOST} WHERE id < ? ORDER BY id DESC LIMIT ?"
    return [_host(row) for row in connection.execute(sql, (before or "~", limit))]


def _host(row: Row) -> HostRow:
    values = list(row)
    values[4] = bool(row[4])
    return HostRow(*values)


def enrolments(connection: sqlite3.Connection) -> list[EnrolmentRow]:
    bound: dict[str, list[str]] = {}
    for enrolment, host_id in connection.execute("SELECT enrolment, host FROM bindings"):
        bound.setdefault(enrolment, []).append(host_id)
    rows = connection.execute(
        "SELECT id, secret_sha256, label, created_at, expires_at, launchers_allowed, revoked"
        " FROM enrolments ORDER BY id"
    )
    return [
        EnrolmentRow(*(*row[:6], bool(row[6]), tuple(sorted(bound.get(row[0], ())))))
        for row in rows
    ]


def tokens(connection: sqlite3.Connection) -> list[TokenRow]:
    return [_token(row) for row in connection.execute(f"{_ACCESS} ORDER BY id")]


def token(connection: sqlite3.Connection, sha256: str) -> TokenRow | None:
    row = connection.execute(f"{_ACCESS} WHERE sha256 = ?", (sha256,)).fetchone()
    return _token(row) if row else None


def _token(row: Row) -> TokenRow:
    return TokenRow(*(*row[:7], bool(row[7])))


def receipts(
    connection: sqlite3.Connection, experiment: str | None, after: int, limit: int
) -> list[tuple[int, Receipt]]:
    rows = connection.execute(
        "SELECT sequence, body FROM receipts WHERE sequence > ?2"
        " AND (?1 IS NULL OR experiment = ?1) ORDER BY sequence LIMIT ?3",
        (experiment, after, limit),
    )
    return [(number, Receipt.model_validate_json(body)) for number, body in rows]


def receipts_due(connection: sqlite3.Connection, launcher_key: str, limit: int) -> list[Receipt]:
    rows = connection.execute(
        "SELECT body FROM receipts WHERE launcher_key = ? AND kept = 0 ORDER BY sequence LIMIT ?",
        (launcher_key, limit),
    )
    return [Receipt.model_validate_json(body) for (body,) in rows]


def ledger(connection: sqlite3.Connection, experiment: str | None) -> Ledger:
    row = connection.execute(
        "SELECT ifnull(sum(granted), 0.0), ifnull(sum(receipts), 0), ifnull(sum(cpu_seconds), 0.0)"
        " FROM ledger WHERE ?1 IS NULL OR experiment = ?1",
        (experiment,),
    ).fetchone()
    return Ledger(*row)


def credit(connection: sqlite3.Connection, query: CreditQuery) -> list[CreditRow]:
    rows = connection.execute(
        "SELECT r.enrolment, r.experiment, ifnull(e.label, ''), sum(granted), sum(cpu_seconds),"
        " count(*), min(accepted_at), max(accepted_at)"
        " FROM receipts r LEFT JOIN enrolments e ON e.id = r.enrolment"
        " WHERE (r.enrolment, r.experiment) > (?1, ?2) AND (?3 IS NULL OR r.experiment = ?3)"
        " AND (?4 IS NULL OR accepted_at >= ?4) AND (?5 IS NULL OR accepted_at < ?5)"
        " GROUP BY r.enrolment, r.experiment ORDER BY r.enrolment, r.experiment LIMIT ?6",
        (*query.after, query.experiment, query.since, query.until, query.limit),
    )
    return [CreditRow(*row) for row in rows]


def journal(connection: sqlite3.Connection, after: int, limit: int) -> list[JournalEntry]:
    rows = connection.execute(
        "SELECT first, last, body FROM journal WHERE last > ? ORDER BY last LIMIT ?", (after, limit)
    )
    return [JournalEntry(*row) for row in rows]


def journal_last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT ifnull(max(last), 0) FROM journal").fetchone()[0])
