"""Changes to jobs and attempts, as sets, inside the writer's transaction."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState
from job_manager_adapter.core import attempts as core
from job_manager_adapter.store.postgres_classes import Classes
from job_manager_adapter.store.postgres_endings import Endings, Found, columns, find
from job_manager_adapter.store.postgres_news import Me, tell_waiting
from job_manager_adapter.store.records import (
    Cancelled,
    Claim,
    Claimed,
    Finish,
    Finished,
    Release,
    Released,
    Retried,
    Selected,
    Start,
    Waiting,
)

# The pilots' rows are locked so that none moves to another manager meanwhile: what is claimed for
# it is there when that manager reads what the pilot holds.
# Rows are found by ANY and LATERAL, and paired by their places in arrays. Of a join PostgreSQL may
# read the table first, which is right for a small one, and go on with that plan when it has grown;
# or it may compare each row of one list with each of the other.
_CLAIM = """
WITH slots AS MATERIALIZED (
    SELECT s.pilot, s.class, s.at, s.claim
    FROM unnest($1::text[], $2::int[], $3::float8[], $4::int[]) AS s(pilot, class, at, claim)
    CROSS JOIN LATERAL (
        SELECT (SELECT manager FROM pilots WHERE id = s.pilot FOR SHARE) AS manager OFFSET 0
    ) p
    WHERE p.manager IS NULL OR p.manager = $6
), wanted AS MATERIALIZED (
    SELECT class, count(*) AS count, array_agg(pilot ORDER BY claim) AS pilots,
        array_agg(at ORDER BY claim) AS ats, array_agg(claim ORDER BY claim) AS claims
    FROM slots GROUP BY class
), taken AS MATERIALIZED (
    SELECT j.*, w.pilots[j.n] AS pilot, w.ats[j.n] AS at, w.claims[j.n] AS claim
    FROM wanted w CROSS JOIN LATERAL (
        SELECT found.*, row_number() OVER (ORDER BY priority DESC, sequence) AS n FROM (
            SELECT sequence, id, attempt + 1 AS attempt, class, priority, pause_seconds,
                reference_cpu_seconds
            FROM jobs WHERE state = 'waiting' AND class = w.class AND id <> ALL($5::text[])
            ORDER BY priority DESC, sequence LIMIT w.count FOR UPDATE SKIP LOCKED
        ) found
    ) j
), lists AS MATERIALIZED (
    SELECT array_agg(sequence) AS jobs, array_agg(pilot) AS pilots, array_agg(at) AS ats FROM taken
), leased AS (
    UPDATE jobs j SET state = 'leased', attempt = j.attempt + 1, started_at = NULL,
        (pilot, changed_at) = (
            SELECT l.pilots[place], l.ats[place]
            FROM lists l CROSS JOIN LATERAL array_position(l.jobs, j.sequence) AS place
        )
    WHERE j.sequence = ANY((SELECT jobs FROM lists)::bigint[])
), tried AS (
    INSERT INTO attempts (job, attempt, pilot, leased_at)
    SELECT sequence, attempt, pilot, at FROM taken
)
SELECT t.claim, t.id, t.sequence, t.attempt, t.class, t.priority, t.pause_seconds,
    t.reference_cpu_seconds, x.spec, t.at
FROM taken t CROSS JOIN LATERAL (
    SELECT spec FROM specs WHERE sequence = t.sequence OFFSET 0
) x ORDER BY t.claim, t.n"""
# The empty text hides the state from the index of open jobs, which are many.
_START = """
UPDATE jobs j SET state = 'running', (started_at, changed_at) = (
    SELECT at, at FROM (SELECT ($4::float8[])[array_position($1::text[], j.id)] AS at) s
)
WHERE j.id = ANY($1::text[]) AND j.state || '' = 'leased'
    AND j.attempt = ($2::int[])[array_position($1::text[], j.id)]
    AND j.pilot = ($3::text[])[array_position($1::text[], j.id)]
RETURNING j.id"""
_SELECT = """
SELECT sequence, id, experiment, class, priority, state, attempt, pilot
FROM jobs WHERE id = ANY($1::text[]) ORDER BY sequence FOR UPDATE"""
_CANCEL = """
UPDATE jobs j SET state = 'cancelled', pilot = NULL, failure_class = 'cancelled',
    message = 'cancelled by its owner', changed_at = c.at
FROM unnest($1::bigint[], $2::float8[]) AS c(sequence, at) WHERE j.sequence = c.sequence"""
_RETRY = """
UPDATE jobs j SET state = 'waiting', charged = 0, uncharged = 0, failure_class = NULL,
    message = '', changed_at = c.at
FROM unnest($1::bigint[], $2::float8[]) AS c(sequence, at) WHERE j.sequence = c.sequence"""
_FORGET = """
WITH gone AS (
    DELETE FROM jobs WHERE id = ANY($1::text[]) AND state IN ('succeeded', 'failed', 'cancelled')
    RETURNING sequence
), specs_gone AS (DELETE FROM specs WHERE sequence IN (SELECT sequence FROM gone))
DELETE FROM attempts WHERE job IN (SELECT sequence FROM gone)"""
_FORGET_KEYS = """
WITH gone AS (
    DELETE FROM submissions s WHERE at < $1
        AND NOT EXISTS (SELECT FROM jobs WHERE jobs.batch = s.batch) RETURNING 1
) SELECT count(*) FROM gone"""
_TOLD = """
UPDATE jobs j SET told = t.state FROM unnest($1::text[], $2::text[]) AS t(job, state)
WHERE j.id = t.job"""
_T = TypeVar("_T", Start, Finish, Release)


class JobWrites:
    """Operations of `store.base.JobStore` that change something, but for `submit`."""

    def __init__(self, classes: Classes, me: Me) -> None:
        self._classes = classes
        self._me = me

    # Leases

    async def claim(self, connection: Any, many: Sequence[Claim]) -> list[list[Claimed]]:
        slots = [
            (claim.pilot, claim.klass, claim.at, index)
            for index, claim in enumerate(many)
            for _ in range(claim.count)
        ]
        slots.sort()  # all managers lock pilots in the same order
        without = list(frozenset[str]().union(*(claim.without for claim in many)))
        results: list[list[Claimed]] = [[] for _ in many]
        rows = await connection.fetch(_CLAIM, *columns(slots, 4), without, self._me.number)
        for row in rows:
            claim, job, *rest = row
            results[claim].append(Claimed(job, *rest))
        return results

    async def start(self, connection: Any, many: Sequence[Start]) -> list[bool]:
        results = [False] * len(many)
        for part in _rounds(many, lambda item: item.job):
            rows = [(many[i].job, many[i].attempt, many[i].pilot, many[i].at) for i in part]
            started = {row[0] for row in await connection.fetch(_START, *columns(rows, 4))}
            for index in part:
                results[index] = many[index].job in started
        return results

    # Ends

    async def finish(self, connection: Any, many: Sequence[Finish]) -> list[Finished]:
        results: dict[int, Finished] = {}
        for part in _rounds(many, lambda item: item.report.job):
            keys = [(many[index].report.job, many[index].report.attempt) for index in part]
            endings = Endings()
            for index, found in zip(part, await find(connection, keys), strict=True):
                results[index] = await self._finish(connection, endings, many[index], found)
            await endings.write(connection, self._me)
        await self._tell(connection, results.values())
        return [results[index] for index in range(len(many))]

    async def _finish(
        self, connection: Any, endings: Endings, item: Finish, found: Found | None
    ) -> Finished:
        judgement = core.judge(found.standing if found else None, item.pilot, item.report)
        if found and judgement.record:
            endings.late.append((found.sequence, found.attempt, item.report.model_dump_json()))
        ending = judgement.ending
        if found is None or ending is None:
            return Finished(judgement.verdict, judgement.reason)
        receipt = item.receipt if ending.state is JobState.SUCCEEDED else None
        endings.add(found, ending, item.at, item.report.message, item, receipt)
        requeued = await self._requeued(connection, found, ending)
        failures = ending.failures(found.standing)
        return Finished(VerdictKind.ACCEPTED, judgement.reason, ending.state, requeued, failures)

    async def release(self, connection: Any, many: Sequence[Release]) -> list[Released]:
        results: dict[int, Released] = {}
        for part in _rounds(many, lambda item: item.job):
            keys = [(many[index].job, many[index].attempt) for index in part]
            endings = Endings()
            for index, found in zip(part, await find(connection, keys), strict=True):
                results[index] = await self._release(connection, endings, many[index], found)
            await endings.write(connection, self._me)
        await self._tell(connection, results.values())
        return [results[index] for index in range(len(many))]

    async def _release(
        self, connection: Any, endings: Endings, item: Release, found: Found | None
    ) -> Released:
        ending = core.end(found.standing, item.failure_class) if found else None
        if found is None or ending is None or self._others(found, item):
            return Released(item.job, item.attempt)
        endings.add(found, ending, item.at, item.message)
        requeued = await self._requeued(connection, found, ending)
        pilot, failures = found.standing.pilot, ending.failures(found.standing)
        return Released(item.job, item.attempt, pilot, ending.state, requeued, failures)

    def _others(self, found: Found, item: Release) -> bool:
        """Whether only another manager can know that the lease ran out."""
        return item.overdue and found.manager not in (None, self._me.number)

    async def _requeued(self, connection: Any, found: Found, ending: core.Ending) -> Waiting | None:
        if ending.state is not JobState.WAITING:
            return None
        klass = await self._classes.get(connection, found.klass)
        return Waiting(klass, found.priority, 1, found.sequence)

    async def _tell(self, connection: Any, ended: Iterable[Finished | Released]) -> None:
        """Peers hear of jobs that wait again; not of those that are to rest before."""
        await tell_waiting(
            connection, self._me, (item.requeued for item in ended if not item.failures)
        )

    # What users change

    async def cancel(self, connection: Any, many: Sequence[Selected]) -> list[Cancelled]:
        rows = await self._selected(connection, many)
        running = [row for row in rows.values() if row["state"] in ("leased", "running")]
        keys = [(row["id"], row["attempt"]) for row in running]
        found = {item.job: item for item in await find(connection, keys) if item}
        endings, sequences, results = Endings(), [], []
        for item in many:
            result = await self._cancel(connection, item, rows.get(item.job))
            results.append(result)
            if result.refusal:
                continue
            row = rows.pop(item.job)
            sequences.append((row["sequence"], item.at))
            rows[item.job] = {**row, "state": JobState.CANCELLED}
            if standing := found.get(item.job):
                _end_cancelled(endings, standing, item.at)
        await endings.write(connection, self._me)
        await connection.execute(_CANCEL, *columns(sequences, 2))
        return results

    async def _selected(self, connection: Any, many: Sequence[Selected]) -> dict[str, Any]:
        found = await connection.fetch(_SELECT, [item.job for item in many])
        return {row["id"]: row for row in found}

    async def _cancel(self, connection: Any, item: Selected, row: Any) -> Cancelled:
        if row is None or item.experiment not in (None, row["experiment"]):
            return Cancelled(item.job, "no such job")
        was = JobState(row["state"])
        if was.final:
            return Cancelled(item.job, f"it is {was} already")
        experiment, attempt = row["experiment"], row["attempt"]
        if was is not JobState.WAITING:
            return Cancelled(item.job, "", experiment, was, row["pilot"], attempt)
        klass = await self._classes.get(connection, row["class"])
        waiting = Waiting(klass, row["priority"], 1, row["sequence"])
        return Cancelled(item.job, "", experiment, was, None, attempt, waiting)

    async def retry(self, connection: Any, many: Sequence[Selected]) -> list[Retried]:
        rows = await self._selected(connection, many)
        sequences, results = [], []
        for item in many:
            result = await self._retry(connection, item, rows.get(item.job))
            results.append(result)
            if result.requeued:
                sequences.append((result.requeued.head, item.at))
                rows[item.job] = {**rows[item.job], "state": JobState.WAITING}
        await connection.execute(_RETRY, *columns(sequences, 2))
        await tell_waiting(connection, self._me, (item.requeued for item in results))
        return results

    async def _retry(self, connection: Any, item: Selected, row: Any) -> Retried:
        if row is None or item.experiment not in (None, row["experiment"]):
            return Retried(item.job, "no such job")
        state = row["state"]
        if state not in (JobState.FAILED, JobState.CANCELLED):
            return Retried(item.job, f"it is {state}; only failed and cancelled jobs are retried")
        klass = await self._classes.get(connection, row["class"])
        return Retried(item.job, "", Waiting(klass, row["priority"], 1, row["sequence"]))

    async def forget(self, connection: Any, many: Sequence[str]) -> list[None]:
        await connection.execute(_FORGET, list(many))
        return [None] * len(many)

    async def forget_keys(self, connection: Any, many: Sequence[float]) -> list[int]:
        return [await connection.fetchval(_FORGET_KEYS, before) for before in many]

    async def told(self, connection: Any, many: Sequence[tuple[str, JobState]]) -> list[None]:
        await connection.execute(_TOLD, *columns(dict(many).items(), 2))
        return [None] * len(many)


def _rounds(many: Sequence[_T], job: Callable[[_T], str]) -> Iterator[list[int]]:
    """Indices of items, each job once in a round: what comes again is judged by what is written."""
    left = list(range(len(many)))
    while left:
        seen: set[str] = set()
        part: list[int] = []
        again: list[int] = []
        for index in left:
            name = job(many[index])
            (again if name in seen else part).append(index)
            seen.add(name)
        yield part
        left = again


def _end_cancelled(endings: Endings, found: Found, at: float) -> None:
    ending = core.end(found.standing, FailureClass.CANCELLED)
    if ending is not None:
        endings.add(found, ending, at, "cancelled by its owner")
