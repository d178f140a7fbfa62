"""Submissions: many jobs, one statement, one commit."""

import json
from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store.postgres_classes import Classes
from job_manager_adapter.store.postgres_endings import columns
from job_manager_adapter.store.postgres_news import Me, tell_waiting
from job_manager_adapter.store.records import NewJob, Submission, Submitted, Waiting

_REMEMBER = """
INSERT INTO submissions (owner, key, digest, batch, jobs, at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING 1"""
_KNOWN = "SELECT digest, batch, jobs FROM submissions WHERE owner = $1 AND key = $2"
_INSERT = """
WITH new AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('jobs', 'sequence')) AS sequence, j.*
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::int[], $7::int[],
        $8::float8[], $9::float8[], $10::float8[], $11::text[], $12::text[], $13::bytea[])
    AS j(id, batch, experiment, class, name, priority, max_attempts, pause_seconds,
        reference_cpu_seconds, at, labels, upstream, spec)
), specs_written AS (
    INSERT INTO specs SELECT sequence, spec FROM new
), jobs_written AS (
    INSERT INTO jobs (sequence, id, batch, experiment, class, name, priority, max_attempts,
        pause_seconds, reference_cpu_seconds, submitted_at, changed_at, labels, upstream)
    SELECT sequence, id, batch, experiment, class, name, priority, max_attempts, pause_seconds,
        reference_cpu_seconds, at, at, labels::jsonb, upstream FROM new
)
SELECT sequence FROM new ORDER BY sequence"""
_Classes = dict[tuple[str, Requirements], RequirementClass]


class Submissions:
    def __init__(self, classes: Classes, me: Me) -> None:
        self._classes = classes
        self._me = me

    async def submit(self, connection: Any, many: Sequence[Submission]) -> list[Submitted]:
        known = [await _known(connection, item) for item in many]
        new = [item for item, old in zip(many, known, strict=True) if old is None]
        jobs = [job for item in new for job in item.jobs]
        classes = await self._classes.intern(connection, jobs)
        rows = [_row(item, job, classes) for item in new for job in item.jobs]
        found = await connection.fetch(_INSERT, *columns(rows, 13)) if rows else []
        sequences = iter([row[0] for row in found])
        fresh = iter([_submitted(item, classes, sequences) for item in new])
        results = [old or next(fresh) for old in known]
        waiting = [item for result in results if result.created for item in result.waiting]
        await tell_waiting(connection, self._me, waiting)
        return results


async def _known(connection: Any, item: Submission) -> Submitted | None:
    """None if it is new; then its key is taken."""
    if item.key is None:
        return None
    ids = [job.id for job in item.jobs]
    values = (item.owner, item.key, item.digest, item.batch, ids, item.at)
    if await connection.fetchval(_REMEMBER, *values):
        return None
    digest, batch, jobs = await connection.fetchrow(_KNOWN, item.owner, item.key)
    return Submitted(batch, tuple(jobs), False, conflict=digest != item.digest)


def _row(item: Submission, job: NewJob, classes: _Classes) -> tuple[Any, ...]:
    return (
        job.id,
        item.batch,
        job.experiment,
        classes[job.experiment, job.requirements].id,
        job.name,
        job.priority,
        job.max_attempts,
        job.pause_seconds,
        job.reference_cpu_seconds,
        item.at,
        json.dumps(dict(job.labels)) if job.labels else "{}",
        job.upstream,
        job.spec,
    )


def _submitted(item: Submission, classes: _Classes, sequences: Any) -> Submitted:
    counts: dict[tuple[int, int], Waiting] = {}
    for job in item.jobs:
        klass, sequence = classes[job.experiment, job.requirements], next(sequences)
        known = counts.get((klass.id, job.priority))
        count, head = (known.count + 1, known.head) if known else (1, sequence)
        counts[klass.id, job.priority] = Waiting(klass, job.priority, count, head)
    ids = tuple(job.id for job in item.jobs)
    return Submitted(item.batch, ids, True, tuple(counts.values()))
