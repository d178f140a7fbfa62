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
_CLAIM = """
WITH here AS MATERIALIZED (
    SELECT id, manager FROM pilots WHERE id = ANY($1::text[]) ORDER BY id FOR SHARE
), slots AS MATERIALIZED (
    SELECT s.pilot, s.class, s.at, s.claim,
        row_number() OVER (PARTITION BY s.class ORDER BY s.ord) AS n
    FROM unnest($1::text[], $2::int[], $3::float8[], $4::int[])
        WITH ORDINALITY AS s(pilot, class, at, claim, ord)
    WHERE NOT EXISTS (SELECT FROM here WHERE here.id = s.pilot AND here.manager <> $6)
), wanted AS MATERIALIZED (
    SELECT class, max(n) AS count FROM slots GROUP BY class
), taken AS MATERIALIZED (
    SELECT w.class, j.sequence, j.priority
    FROM wanted w CROSS JOIN LATERAL (
        SELECT sequence, priority FROM jobs
        WHERE state = 'waiting' AND class = w.class AND id <> ALL($5::text[])
        ORDER BY priority DESC, sequence LIMIT w.count FOR UPDATE SKIP LOCKED
    ) j
), numbered AS (
    SELECT sequence, class,
        row_number() OVER (PARTITION BY class ORDER BY priority DESC, sequence) AS n
    FROM taken
), leased AS (
    UPDATE jobs j SET state = 'leased', attempt = j.attempt + 1, pilot = s.pilot,
        started_at = NULL, changed_at = s.at
    FROM numbered t JOIN slots s ON s.class = t.class AND s.n = t.n
    WHERE j.sequence = t.sequence
    RETURNING s.claim, s.n, j.id, j.sequence, j.attempt, j.class, j.priority, j.pause_seconds,
        j.reference_cpu_seconds, s.at, s.pilot
), tried AS (
    INSERT INTO attempts (job, attempt, pilot, leased_at)
    SELECT sequence, attempt, pilot, at FROM leased
)
SELECT l.claim, l.id, l.sequence, l.attempt, l.class, l.priority, l.pause_seconds,
    l.reference_cpu_seconds, x.spec, l.at
FROM leased l JOIN specs x ON x.sequence = l.sequence ORDER BY l.claim, l.n"""
_START = """
UPDATE jobs j SET state = 'running', started_at = s.at, changed_at = s.at
FROM unnest($1::text[], $2::int[], $3::text[], $4::float8[]) AS s(job, attempt, pilot, at)
WHERE j.id = s.job AND j.attempt = s.attempt AND j.pilot = s.pilot AND j.state = 'leased'
RETURNING s.job, s.attempt, s.pilot"""
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
_T = TypeVar("_T", Finish, Release)


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
        without = list(frozenset[str]().union(*(claim.without for claim in many)))
        results: list[list[Claimed]] = [[] for _ in many]
        rows = await connection.fetch(_CLAIM, *columns(slots, 4), without, self._me.number)
        for row in rows:
            claim, job, *rest = row
            results[claim].append(Claimed(job, *rest))
        return results

    async def start(self, connection: Any, many: Sequence[Start]) -> list[bool]:
        rows = {(item.job, item.attempt, item.pilot): item.at for item in reversed(many)}
        arrays = columns(((*key, at) for key, at in rows.items()), 4)
        done = {tuple(row) for row in await connection.fetch(_START, *arrays)}
        results = []
        for item in many:
            key = (item.job, item.attempt, item.pilot)
            results.append(key in done)
            done.discard(key)  # who says it twice started it once
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
