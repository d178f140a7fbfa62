"""Ends of attempts, collected and written as sets: jobs, attempts, receipts, ledger, counters."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.job import JobState, Outcome
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core import attempts as core
from job_manager_adapter.store.rows import OUTPUTS

_STANDING = """
SELECT j.sequence, j.experiment, j.class, j.priority, j.state, j.attempt, j.max_attempts,
    j.charged, j.uncharged, j.started_at, a.pilot, a.ended_at, a.accepted
FROM jobs j JOIN attempts a ON a.job = j.sequence AND a.attempt = ? WHERE j.id = ?"""
_END_JOB = """
UPDATE jobs SET state = ?, charged = charged + ?, uncharged = uncharged + ?, pilot = NULL,
    failure_class = ?, message = ?, changed_at = ? WHERE sequence = ?"""
_END_ATTEMPT = """
UPDATE attempts SET started_at = ?, ended_at = ?, outcome = ?, failure_class = ?, charged = ?,
    accepted = ?, exit_code = ?, signal = ?, message = ?, usage = ?, outputs = ?, granted = ?
WHERE job = ? AND attempt = ?"""
_LATE = "UPDATE attempts SET late = ? WHERE job = ? AND attempt = ? AND late IS NULL"
_INSERT_RECEIPT = """
INSERT INTO receipts (id, job, experiment, launcher_key, body) VALUES (?, ?, ?, ?, ?)"""
_LEDGER = """
INSERT INTO ledger (experiment, granted, receipts, cpu_seconds) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET granted = granted + excluded.granted,
    receipts = receipts + excluded.receipts, cpu_seconds = cpu_seconds + excluded.cpu_seconds"""
_HOST_CREDIT = """
UPDATE hosts SET jobs_succeeded = jobs_succeeded + ?, granted = granted + ?
WHERE launcher_key = ?"""


@dataclass(frozen=True, slots=True)
class Found:
    """A job and one of its attempts as read in this transaction."""

    sequence: int
    job: str
    attempt: int
    experiment: str
    klass: int
    priority: int
    started_at: float | None
    standing: core.Standing


@dataclass
class Endings:
    """Ends of attempts to be written in one go; nothing else reads the tables meanwhile."""

    jobs: list[tuple[object, ...]] = field(default_factory=list)
    attempts: list[tuple[object, ...]] = field(default_factory=list)
    late: list[tuple[object, ...]] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    succeeded: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    touched: set[str] = field(default_factory=set)

    def add(
        self,
        found: Found,
        ending: core.Ending,
        at: float,
        message: str,
        report: Report | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        self.touched.add(found.job)
        self.jobs.append(
            (
                ending.state,
                int(ending.charged),
                int(not ending.charged),
                ending.failure_class,
                message,
                at,
                found.sequence,
            )
        )
        self.attempts.append(
            (
                found.started_at,
                at,
                ending.outcome,
                ending.failure_class,
                int(ending.charged and ending.failure_class is not None),
                int(report is not None),
                report.exit_code if report else None,
                report.signal if report else None,
                message,
                report.usage.model_dump_json() if report else None,
                OUTPUTS.dump_json(report.outputs).decode() if report else None,
                receipt.statement.granted if receipt else None,
                found.sequence,
                found.attempt,
            )
        )
        if receipt:
            self.receipts.append(receipt)
        if ending.outcome is Outcome.SUCCEEDED:
            self.succeeded[found.standing.pilot] += 1
        elif ending.outcome is Outcome.FAILED:
            self.failed[found.standing.pilot] += 1

    def write(self, connection: sqlite3.Connection) -> None:
        connection.executemany(_END_JOB, self.jobs)
        connection.executemany(_END_ATTEMPT, self.attempts)
        connection.executemany(_LATE, self.late)
        connection.executemany(_INSERT_RECEIPT, map(_receipt_row, self.receipts))
        connection.executemany(_LEDGER, _ledger_rows(self.receipts))
        connection.executemany(_HOST_CREDIT, _host_rows(self.receipts))
        for column, counts in (("jobs_succeeded", self.succeeded), ("jobs_failed", self.failed)):
            connection.executemany(
                f"UPDATE pilots SET {column} = {column} + ? WHERE id = ?",  # noqa: S608
                [(count, pilot) for pilot, count in counts.items()],
            )


def _receipt_row(receipt: Receipt) -> tuple[object, ...]:
    statement = receipt.statement
    body = receipt.model_dump_json()
    return (statement.id, statement.job, statement.experiment, statement.launcher, body)


def _ledger_rows(receipts: Sequence[Receipt]) -> Iterator[tuple[object, ...]]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0, 0.0])
    for receipt in receipts:
        row = sums[receipt.statement.experiment]
        row[0] += receipt.statement.granted
        row[1] += 1
        row[2] += receipt.statement.cpu_seconds
    return ((experiment, row[0], int(row[1]), row[2]) for experiment, row in sums.items())


def _host_rows(receipts: Sequence[Receipt]) -> Iterator[tuple[object, ...]]:
    jobs: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    for receipt in receipts:
        jobs[receipt.statement.launcher] += 1
        sums[receipt.statement.launcher] += receipt.statement.granted
    return ((jobs[launcher], sums[launcher], launcher) for launcher in jobs)


def find(connection: sqlite3.Connection, job: str, attempt: int) -> Found | None:
    row = connection.execute(_STANDING, (attempt, job)).fetchone()
    if row is None:
        return None
    (sequence, experiment, klass, priority, state, newest, limit, charged, uncharged) = row[:9]
    started_at, pilot, ended_at, accepted = row[9:]
    standing = core.Standing(
        state=JobState(state),
        max_attempts=limit,
        charged=charged,
        uncharged=uncharged,
        pilot=pilot,
        open=ended_at is None and newest == attempt and state in ("leased", "running"),
        accepted=bool(accepted),
    )
    return Found(sequence, job, attempt, experiment, klass, priority, started_at, standing)
