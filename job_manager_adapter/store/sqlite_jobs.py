"""Changes to jobs and attempts, as sets, inside the writer's transaction."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Requirements
from job_manager_adapter.core import attempts as core
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import sqlite_statements as sql
from job_manager_adapter.store.records import (
    Cancelled,
    Claim,
    Claimed,
    Finish,
    Finished,
    NewJob,
    Release,
    Released,
    Retried,
    Selected,
    Start,
    Submission,
    Submitted,
    Waiting,
)
from job_manager_adapter.store.sqlite_endings import Endings, Found, find
from job_manager_adapter.store.sqlite_sets import read_one, write

_START = """
UPDATE jobs SET state = 'running', started_at = ?, changed_at = ?
WHERE id = ? AND attempt = ? AND pilot = ? AND state = 'leased'"""
_SELECTED = """
SELECT sequence, experiment, class, priority, state, attempt, pilot FROM jobs WHERE id = ?"""

_FORGET_KEYS = """
DELETE FROM submissions WHERE at < ?
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.batch = submissions.batch)"""


class JobWrites:
    """The operations of `store.base.JobStore` that change something."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, str], RequirementClass] = {}

    # Submission

    def submit(self, connection: sqlite3.Connection, many: Sequence[Submission]) -> list[Submitted]:
        (sequence,) = connection.execute("SELECT ifnull(max(sequence), 0) FROM jobs").fetchone()
        results, jobs, specs = [], [], []
        fresh: dict[tuple[str, str], RequirementClass] = {}
        for submission in many:
            if submission.key is not None and (known := _known(connection, submission)):
                results.append(known)
                continue
            counts: dict[tuple[int, int], Waiting] = {}
            for job in submission.jobs:
                sequence += 1
                klass = self._intern(connection, job, fresh)
                jobs.append(_job_row(sequence, submission, job, klass))
                specs.append((sequence, job.spec))
                _count(counts, klass, job.priority, sequence)
            ids = tuple(job.id for job in submission.jobs)
            results.append(Submitted(submission.batch, ids, True, tuple(counts.values())))
            if submission.key is not None:
                _remember(connection, submission, ids)
        write(connection, sql.INSERT_JOBS, jobs)
        write(connection, sql.INSERT_SPECS, specs)
        return results

    def _intern(
        self,
        connection: sqlite3.Connection,
        job: NewJob,
        fresh: dict[tuple[str, str], RequirementClass],
    ) -> RequirementClass:
        """`_classes` holds committed classes only, so that a rollback cannot leave a wrong one."""
        key = (job.experiment, job.requirements.model_dump_json())
        known = self._classes.get(key) or fresh.get(key)
        if known:
            return known
        row = connection.execute(
            "SELECT id FROM classes WHERE experiment = ? AND requirements = ?", key
        ).fetchone()
        if row:
            self._classes[key] = RequirementClass(row[0], job.experiment, job.requirements)
            return self._classes[key]
        cursor = connection.execute(
            "INSERT INTO classes (experiment, requirements) VALUES (?, ?)", key
        )
        fresh[key] = RequirementClass(cursor.lastrowid or 0, job.experiment, job.requirements)
        return fresh[key]

    # Leases

    def claim(self, connection: sqlite3.Connection, many: Sequence[Claim]) -> list[list[Claimed]]:
        wanted: Counter[int] = Counter()
        without: dict[int, frozenset[str]] = {}
        for claim in many:
            wanted[claim.klass] += claim.count
            without[claim.klass] = without.get(claim.klass, frozenset()) | claim.without
        rows = {
            klass: _next(connection, klass, count, without[klass])
            for klass, count in wanted.items()
        }
        results = [_take(claim, rows[claim.klass]) for claim in many]
        taken = [
            (got.sequence, got.attempt, claim.pilot, got.at)
            for claim, claimed in zip(many, results, strict=True)
            for got in claimed
        ]
        write(connection, sql.LEASE, taken)
        write(connection, sql.INSERT_ATTEMPTS, taken)
        return results

    def start(self, connection: sqlite3.Connection, many: Sequence[Start]) -> list[bool]:
        return [
            connection.execute(
                _START, (item.at, item.at, item.job, item.attempt, item.pilot)
            ).rowcount
            == 1
            for item in many
        ]

    def finish(self, connection: sqlite3.Connection, many: Sequence[Finish]) -> list[Finished]:
        results: list[Finished] = []
        for part in _distinct(many):
            endings = Endings()
            found = find(connection, [(item.report.job, item.report.attempt) for item in part])
            for item, there in zip(part, found, strict=True):
                judgement = core.judge(there.standing if there else None, item.pilot, item.report)
                results.append(self._finished(connection, endings, item, there, judgement))
            endings.write(connection)
        return results

    def _finished(
        self,
        connection: sqlite3.Connection,
        endings: Endings,
        item: Finish,
        found: Found | None,
        judgement: core.Judgement,
    ) -> Finished:
        if found and judgement.record:
            body = item.report.model_dump_json()
            endings.late.append((body, found.sequence, found.attempt))
        if found is None or judgement.ending is None:
            return Finished(judgement.verdict, judgement.reason)
        receipt = item.receipt if judgement.ending.state is JobState.SUCCEEDED else None
        endings.add(found, judgement.ending, item.at, item.report.message, item, receipt)
        return Finished(
            VerdictKind.ACCEPTED,
            judgement.reason,
            judgement.ending.state,
            self.requeued(connection, found, judgement.ending),
            judgement.ending.failures(found.standing),
        )

    def release(self, connection: sqlite3.Connection, many: Sequence[Release]) -> list[Released]:
        endings, results = Endings(), []
        there = find(connection, [(item.job, item.attempt) for item in many])
        for item, found in zip(many, there, strict=True):
            if item.job in endings.touched:
                found = None
            ending = core.end(found.standing, item.failure_class) if found else None
            if found is None or ending is None:
                results.append(Released(item.job, item.attempt))
                continue
            endings.add(found, ending, item.at, item.message)
            requeued = self.requeued(connection, found, ending)
            pilot = found.standing.pilot
            failures = ending.failures(found.standing)
            results.append(
                Released(item.job, item.attempt, pilot, ending.state, requeued, failures)
            )
        endings.write(connection)
        return results

    def requeued(
        self, connection: sqlite3.Connection, found: Found, ending: core.Ending
    ) -> Waiting | None:
        if ending.state is not JobState.WAITING:
            return None
        klass = self.klass(connection, found.klass)
        return Waiting(klass, found.priority, 1, found.sequence)

    def klass(self, connection: sqlite3.Connection, number: int) -> RequirementClass:
        row = connection.execute(
            "SELECT experiment, requirements FROM classes WHERE id = ?", (number,)
        ).fetchone()
        known = self._classes.get(row)
        return known or RequirementClass(number, row[0], Requirements.model_validate_json(row[1]))

    # What users change

    def cancel(self, connection: sqlite3.Connection, many: Sequence[Selected]) -> list[Cancelled]:
        return [self._cancel(connection, item) for item in many]

    def _cancel(self, connection: sqlite3.Connection, item: Selected) -> Cancelled:
        row = connection.execute(_SELECTED, (item.job,)).fetchone()
        if row is None or item.experiment not in (None, row[1]):
            return Cancelled(item.job, "no such job")
        sequence, experiment, klass, priority, state, attempt, pilot = row
        was = JobState(state)
        if was.final:
            return Cancelled(item.job, f"it is {was} already")
        if was is JobState.WAITING:
            waiting = Waiting(self.klass(connection, klass), priority, 1, sequence)
            _cancel_job(connection, sequence, item.at)
            return Cancelled(item.job, "", experiment, was, None, attempt, waiting)
        (found,) = find(connection, [(item.job, attempt)])
        ending = core.end(found.standing, FailureClass.CANCELLED) if found else None
        if found and ending:
            endings = Endings()
            endings.add(found, ending, item.at, "cancelled by its owner")
            endings.write(connection)
        _cancel_job(connection, sequence, item.at)
        return Cancelled(item.job, "", experiment, was, pilot, attempt)

    def retry(self, connection: sqlite3.Connection, many: Sequence[Selected]) -> list[Retried]:
        return [self._retry(connection, item) for item in many]

    def _retry(self, connection: sqlite3.Connection, item: Selected) -> Retried:
        row = connection.execute(_SELECTED, (item.job,)).fetchone()
        if row is None or item.experiment not in (None, row[1]):
            return Retried(item.job, "no such job")
        if row[4] not in (JobState.FAILED, JobState.CANCELLED):
            return Retried(item.job, f"it is {row[4]}; only failed and cancelled jobs are retried")
        connection.execute(
            "UPDATE jobs SET state = 'waiting', charged = 0, uncharged = 0, failure_class = NULL,"
            " message = '', changed_at = ? WHERE sequence = ?",
            (item.at, row[0]),
        )
        return Retried(item.job, "", Waiting(self.klass(connection, row[2]), row[3], 1, row[0]))

    def forget(self, connection: sqlite3.Connection, many: Sequence[str]) -> list[None]:
        final = "state IN ('succeeded', 'failed', 'cancelled')"
        ours = f"(SELECT sequence FROM jobs WHERE id = ? AND {final})"  # noqa: S608
        ids = [(job,) for job in many]
        connection.executemany(f"DELETE FROM attempts WHERE job = {ours}", ids)  # noqa: S608
        connection.executemany(f"DELETE FROM specs WHERE sequence = {ours}", ids)  # noqa: S608
        connection.executemany(f"DELETE FROM jobs WHERE id = ? AND {final}", ids)  # noqa: S608
        return [None] * len(many)

    def forget_keys(self, connection: sqlite3.Connection, many: Sequence[float]) -> list[int]:
        return [connection.execute(_FORGET_KEYS, (before,)).rowcount for before in many]

    def told(
        self, connection: sqlite3.Connection, many: Sequence[tuple[str, JobState]]
    ) -> list[None]:
        connection.executemany(
            "UPDATE jobs SET told = ? WHERE id = ?", [(state, job) for job, state in many]
        )
        return [None] * len(many)


def _distinct(many: Sequence[Finish]) -> Iterator[list[Finish]]:
    """In parts that name no job twice, so that a later report is judged by what is written."""
    part: list[Finish] = []
    jobs: set[str] = set()
    for item in many:
        if item.report.job in jobs:
            yield part
            part, jobs = [], set()
        part.append(item)
        jobs.add(item.report.job)
    yield part


def _known(connection: sqlite3.Connection, submission: Submission) -> Submitted | None:
    row = connection.execute(
        "SELECT digest, batch, jobs FROM submissions WHERE owner = ? AND key = ?",
        (submission.owner, submission.key),
    ).fetchone()
    if row is None:
        return None
    digest, batch, jobs = row
    return Submitted(batch, tuple(json.loads(jobs)), False, conflict=digest != submission.digest)


def _remember(connection: sqlite3.Connection, submission: Submission, ids: tuple[str, ...]) -> None:
    connection.execute(
        "INSERT INTO submissions VALUES (?, ?, ?, ?, ?, ?)",
        (
            submission.owner,
            submission.key,
            submission.digest,
            submission.batch,
            json.dumps(ids),
            submission.at,
        ),
    )


def _job_row(
    sequence: int, submission: Submission, job: NewJob, klass: RequirementClass
) -> tuple[object, ...]:
    return (
        sequence,
        job.id,
        submission.batch,
        job.experiment,
        klass.id,
        job.name,
        job.priority,
        job.max_attempts,
        job.pause_seconds,
        job.reference_cpu_seconds,
        submission.at,
        json.dumps(dict(job.labels)) if job.labels else "{}",
        job.upstream,
    )


def _count(
    counts: dict[tuple[int, int], Waiting], klass: RequirementClass, priority: int, sequence: int
) -> None:
    key = (klass.id, priority)
    known = counts.get(key)
    if known:
        counts[key] = Waiting(klass, priority, known.count + 1, known.head)
    else:
        counts[key] = Waiting(klass, priority, 1, sequence)


def _next(
    connection: sqlite3.Connection, klass: int, count: int, without: frozenset[str]
) -> Iterator[list[Any]]:
    rows = read_one(connection, sql.NEXT, (klass, count + len(without)))
    return (row for row in rows if row[1] not in without)


def _take(claim: Claim, rows: Iterator[list[Any]]) -> list[Claimed]:
    got = []
    for _ in range(claim.count):
        row = next(rows, None)
        if row is None:
            break
        sequence, job, attempt, priority, pause, reference, spec = row
        got.append(
            Claimed(
                *(job, sequence, attempt, claim.klass, priority, pause, reference),
                *(spec.encode(), claim.at),
            )
        )
    return got


def _cancel_job(connection: sqlite3.Connection, sequence: int, at: float) -> None:
    connection.execute(
        "UPDATE jobs SET state = 'cancelled', pilot = NULL, failure_class = 'cancelled',"
        " message = 'cancelled by its owner', changed_at = ? WHERE sequence = ?",
        (at, sequence),
    )
