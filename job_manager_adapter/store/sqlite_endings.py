"""Ends of attempts, collected and written as sets: jobs, attempts, receipts, ledger, counters."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from copilot_agent.protocol.job import JobState
from job_manager_adapter.core import attempts as core
from job_manager_adapter.store import rows as make
from job_manager_adapter.store import sqlite_statements as sql
from job_manager_adapter.store.records import Finish, SignedReceipt
from job_manager_adapter.store.sqlite_sets import read, write


@dataclass(slots=True)
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
    receipts: list[SignedReceipt] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    """Succeeded and failed attempts by pilot."""
    touched: set[str] = field(default_factory=set)

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
        self.touched.add(found.job)
        report, failure = finish and finish.report, ending.failure_class
        state, charged = ending.state, int(ending.charged)
        self.jobs.append((found.sequence, state, charged, failure, message, at))
        self.attempts.append(
            (
                found.sequence,
                found.attempt,
                found.started_at or (finish and finish.started_at),
                at,
                ending.outcome,
                failure,
                int(ending.charged and failure is not None),
                int(report is not None),
                report and report.exit_code,
                report and report.signal,
                message,
                report and report.usage.model_dump_json(exclude_defaults=True),
                report and make.OUTPUTS.dump_json(report.outputs).decode(),
                receipt and receipt.granted,
            )
        )
        if receipt:
            self.receipts.append(receipt)
        counts = self.counts.setdefault(found.standing.pilot, [0, 0])
        counts[0] += ending.succeeded
        counts[1] += ending.failed

    def write(self, connection: sqlite3.Connection) -> None:
        write(connection, sql.END_JOBS, self.jobs)
        write(connection, sql.END_ATTEMPTS, self.attempts)
        connection.executemany(sql.LATE, self.late)
        write(connection, sql.INSERT_RECEIPTS, [make.receipt(each) for each in self.receipts])
        connection.executemany(sql.LEDGER, make.ledger(self.receipts))
        write(connection, sql.HOST_CREDIT, make.credit(self.receipts))
        write(connection, sql.PILOT_COUNTS, [(pilot, *two) for pilot, two in self.counts.items()])


def find(connection: sqlite3.Connection, keys: Sequence[tuple[str, int]]) -> list[Found | None]:
    """By (job, attempt)."""
    found: list[Found | None] = [None] * len(keys)
    rows = [(at, *key) for at, key in enumerate(keys)]
    for row in read(connection, sql.STANDING, rows):
        job, attempt = keys[row[0]]
        found[row[0]] = _found(job, attempt, row)
    return found


def _found(job: str, attempt: int, row: Sequence[Any]) -> Found:
    (_, sequence, experiment, klass, priority, state, newest, limit, charged, uncharged) = row[:10]
    started_at, pilot, ended_at, accepted = row[10:]
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
