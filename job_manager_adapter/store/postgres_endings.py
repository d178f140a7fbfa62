"""Ends of attempts, collected and written as one statement: jobs, attempts, receipts, counters.

The same statement tells other managers (NOTIFY, with the commit) which of their pilots' attempts
ended here.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from copilot_agent.protocol.job import JobState
from job_manager_adapter.core import attempts as core
from job_manager_adapter.store import rows as make
from job_manager_adapter.store.postgres_news import CHANNEL, Me
from job_manager_adapter.store.records import Finish, SignedReceipt

# Locks both rows, jobs in one order everywhere: so neither can be an older version than the other.
_STANDING = """
WITH asked AS MATERIALIZED (
    SELECT ord, attempt, (SELECT sequence FROM jobs WHERE id = job) AS job
    FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS i(job, attempt, ord)
)
SELECT i.ord, j.sequence, j.experiment, j.class, j.priority, j.state, j.attempt, j.max_attempts,
    j.charged, j.uncharged, j.started_at, a.pilot, a.ended_at, a.accepted,
    (SELECT manager FROM pilots WHERE id = a.pilot)
FROM (SELECT * FROM asked ORDER BY job) i
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE sequence = i.job OFFSET 0 FOR UPDATE) j
CROSS JOIN LATERAL (
    SELECT pilot, ended_at, accepted FROM attempts
    WHERE job = i.job AND attempt = i.attempt OFFSET 0 FOR UPDATE
) a"""

# As with claims: ANY finds the rows, and their places in the arrays say what they become.
_END = f"""
WITH jobs_ended AS (
    UPDATE jobs j SET pilot = NULL,
        (state, charged, uncharged, failure_class, message, changed_at) = (
            SELECT ($4::text[])[place], j.charged + ($5::bool[])[place]::int,
                j.uncharged + (NOT ($5::bool[])[place])::int, ($7::text[])[place],
                ($8::text[])[place], ($10::float8[])[place]
            FROM array_position($1::bigint[], j.sequence) AS place
        )
    WHERE j.sequence = ANY($1::bigint[])
), attempts_ended AS (
    UPDATE attempts a SET
        (started_at, ended_at, outcome, failure_class, charged, accepted, exit_code, signal,
            message, usage, outputs, granted) = (
            SELECT ($9::float8[])[place], ($10::float8[])[place], ($6::text[])[place],
                ($7::text[])[place], ($5::bool[])[place] AND ($7::text[])[place] IS NOT NULL,
                ($11::bool[])[place], ($12::bigint[])[place], ($13::int[])[place],
                ($8::text[])[place], ($14::text[])[place], ($15::text[])[place],
                ($16::float8[])[place]
            FROM array_position($1::bigint[], a.job) AS place
        )
    WHERE a.job = ANY($1::bigint[])
        AND a.attempt = ($2::int[])[array_position($1::bigint[], a.job)]
), receipts_written AS (
    INSERT INTO receipts (id, job, experiment, launcher_key, body)
    SELECT * FROM unnest($18::text[], $19::text[], $20::text[], $21::text[], $22::text[])
), ledger_written AS (
    INSERT INTO ledger AS l (experiment, part, granted, receipts, cpu_seconds)
    SELECT experiment, $23, granted, receipts, cpu_seconds
    FROM unnest($24::text[], $25::float8[], $26::int[], $27::float8[])
        AS r(experiment, granted, receipts, cpu_seconds)
    ON CONFLICT (experiment, part) DO UPDATE SET granted = l.granted + excluded.granted,
        receipts = l.receipts + excluded.receipts,
        cpu_seconds = l.cpu_seconds + excluded.cpu_seconds
), hosts_credited AS (
    UPDATE hosts h SET (jobs_succeeded, granted) = (
        SELECT h.jobs_succeeded + ($29::int[])[place], h.granted + ($30::float8[])[place]
        FROM array_position($28::text[], h.launcher_key) AS place
    )
    WHERE h.launcher_key = ANY($28::text[])
), pilots_counted AS (
    UPDATE pilots p SET (jobs_succeeded, jobs_failed) = (
        SELECT p.jobs_succeeded + ($32::int[])[place], p.jobs_failed + ($33::int[])[place]
        FROM array_position($31::text[], p.id) AS place
    )
    WHERE p.id = ANY($31::text[])
)
SELECT pg_notify('{CHANNEL}_' || e.manager, json_build_object('ended', json_build_array(
    e.id, e.attempt, coalesce(e.failure_class, '')))::text)
FROM unnest($2::int[], $3::text[], $7::text[], $17::int[])
    AS e(attempt, id, failure_class, manager)
WHERE e.manager <> $34"""  # noqa: S608 - a constant

_LATE = """
UPDATE attempts a SET late = l.body
FROM unnest($1::bigint[], $2::int[], $3::text[]) AS l(job, attempt, body)
WHERE a.job = l.job AND a.attempt = l.attempt AND a.late IS NULL"""


@dataclass(frozen=True, slots=True)
class Found:
    """A job and one of its attempts, locked."""

    sequence: int
    job: str
    attempt: int
    experiment: str
    klass: int
    priority: int
    started_at: float | None
    manager: int | None
    """Whose pilot has or had the attempt."""
    standing: core.Standing


async def find(connection: Any, keys: Sequence[tuple[str, int]]) -> list[Found | None]:
    """By (job, attempt); each job only once."""
    found: list[Found | None] = [None] * len(keys)
    jobs, attempts = [key[0] for key in keys], [key[1] for key in keys]
    for row in await connection.fetch(_STANDING, jobs, attempts):
        index = row[0] - 1
        job, attempt = keys[index]
        found[index] = _found(job, attempt, row)
    return found


def _found(job: str, attempt: int, row: Sequence[Any]) -> Found:
    (_, sequence, experiment, klass, priority, state, newest, limit, charged, uncharged) = row[:10]
    started_at, pilot, ended_at, accepted, manager = row[10:]
    standing = core.Standing(
        state=JobState(state),
        max_attempts=limit,
        charged=charged,
        uncharged=uncharged,
        pilot=pilot,
        open=ended_at is None and newest == attempt and state in ("leased", "running"),
        accepted=accepted,
    )
    return Found(sequence, job, attempt, experiment, klass, priority, started_at, manager, standing)


@dataclass
class Endings:
    """Ends of attempts to be written in one go, each job only once."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    late: list[tuple[int, int, str]] = field(default_factory=list)
    receipts: list[SignedReceipt] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """Succeeded and failed attempts by pilot."""

    def add(
        self,
        found: Found,
        ending: core.Ending,
        at: float,
        message: str,
        finish: Finish | None = None,
        receipt: SignedReceipt | None = None,
    ) -> None:
        """`finish` is what the pilot said, if it said anything."""
        report = finish.report if finish else None
        self.rows.append(
            (
                found.sequence,
                found.attempt,
                found.job,
                ending.state,
                ending.charged,
                ending.outcome,
                ending.failure_class,
                message.replace("\0", ""),
                found.started_at or (finish and finish.started_at),
                at,
                report is not None,
                report.exit_code if report else None,
                report.signal if report else None,
                report.usage.model_dump_json() if report else None,
                make.OUTPUTS.dump_json(report.outputs).decode() if report else None,
                receipt.granted if receipt else None,
                found.manager,
            )
        )
        if receipt:
            self.receipts.append(receipt)
        if ending.succeeded or ending.failed:
            self.counts[found.standing.pilot][ending.failed] += 1

    async def write(self, connection: Any, me: Me) -> None:
        if self.late:
            await connection.execute(_LATE, *columns(self.late, 3))
        if not self.rows:
            return
        counts = [(pilot, *self.counts[pilot]) for pilot in sorted(self.counts)]
        await connection.fetch(
            _END,
            *columns(self.rows, 17),
            *columns(map(make.receipt, self.receipts), 5),
            me.part,
            *columns(make.ledger(self.receipts), 4),
            *columns(make.credit(self.receipts), 3),
            *columns(counts, 3),
            me.number,
        )


def columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as the arrays that unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
