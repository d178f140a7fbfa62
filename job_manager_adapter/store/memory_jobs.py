"""Jobs in memory."""

import heapq
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from typing import Any

from copilot_agent.protocol.job import JobState
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store.records import (
    AttemptRow,
    Claim,
    Claimed,
    JobQuery,
    JobRow,
    NewJob,
    OpenLease,
    Start,
    Submission,
)


@dataclass(slots=True, eq=False)
class Entry:
    row: JobRow
    spec: bytes
    pause_seconds: float
    reference_cpu_seconds: float | None
    attempts: dict[int, AttemptRow] = field(default_factory=dict)
    told: JobState | None = None

    @property
    def heard(self) -> bool:
        """Its scheduler, if it has one of its own, knows the present state."""
        return self.row.upstream is None or self.told is self.row.state

    def lease(self) -> OpenLease:
        tried = self.attempts[self.row.attempt]
        return OpenLease(
            self.row.id,
            self.row.attempt,
            tried.pilot,
            self.row.klass,
            self.row.priority,
            self.pause_seconds,
            self.reference_cpu_seconds,
            tried.leased_at,
            self.row.state is JobState.RUNNING,
        )


@dataclass(slots=True)
class JobTable:
    _jobs: dict[str, Entry] = field(default_factory=dict)
    _classes: dict[tuple[str, str], RequirementClass] = field(default_factory=dict)
    _queues: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    """By class: (-priority, sequence, job), a heap; entries of jobs that left are skipped."""
    _sequence: int = 0

    def insert(self, submission: Submission, job: NewJob) -> Entry:
        self._sequence += 1
        row = JobRow(
            sequence=self._sequence,
            id=job.id,
            batch=submission.batch,
            experiment=job.experiment,
            name=job.name,
            state=JobState.WAITING,
            attempt=0,
            max_attempts=job.max_attempts,
            charged=0,
            uncharged=0,
            priority=job.priority,
            klass=self._intern(job).id,
            pilot=None,
            failure_class=None,
            message="",
            submitted_at=submission.at,
            changed_at=submission.at,
            labels=dict(job.labels),
            upstream=job.upstream,
        )
        entry = Entry(row, job.spec, job.pause_seconds, job.reference_cpu_seconds)
        self._jobs[job.id] = entry
        self._enqueue(row)
        return entry

    def _intern(self, job: NewJob) -> RequirementClass:
        key = (job.experiment, job.requirements.model_dump_json())
        fresh = RequirementClass(len(self._classes) + 1, job.experiment, job.requirements)
        return self._classes.setdefault(key, fresh)

    def _enqueue(self, row: JobRow) -> None:
        queue = self._queues.setdefault(row.klass, [])
        heapq.heappush(queue, (-row.priority, row.sequence, row.id))

    def klass(self, number: int) -> RequirementClass:
        return self.classes()[number - 1]

    def classes(self) -> list[RequirementClass]:
        return list(self._classes.values())

    def get(self, job: str) -> Entry | None:
        return self._jobs.get(job)

    def entries(self) -> Iterator[Entry]:
        return iter(self._jobs.values())

    def rows(self) -> Iterator[JobRow]:
        return (entry.row for entry in self._jobs.values())

    def held_by(self, pilot: str) -> list[Entry]:
        return [entry for entry in self._jobs.values() if entry.row.pilot == pilot]

    def delete(self, entry: Entry) -> None:
        del self._jobs[entry.row.id]

    def change(self, entry: Entry, at: float, **fields: Any) -> None:
        entry.row = replace(entry.row, changed_at=at, **fields)
        if fields.get("state") is JobState.WAITING:
            self._enqueue(entry.row)

    def next(self, klass: int, count: int, without: Set[str]) -> list[Entry]:
        """Takes the first jobs that wait out of the queue."""
        queue = self._queues.get(klass, [])
        found: list[Entry] = []
        passed = []
        while queue and len(found) < count:
            place = heapq.heappop(queue)
            entry = self._jobs.get(place[2])
            if entry is None or entry.row.state is not JobState.WAITING or entry in found:
                continue
            if entry.row.id in without:
                passed.append(place)
            else:
                found.append(entry)
        for place in passed:
            heapq.heappush(queue, place)
        return found

    def lease(self, entry: Entry, claim: Claim) -> Claimed:
        number = entry.row.attempt + 1
        self.change(entry, claim.at, state=JobState.LEASED, attempt=number, pilot=claim.pilot)
        entry.attempts[number] = AttemptRow(entry.row.id, number, claim.pilot, "", claim.at)
        return Claimed(
            entry.row.id,
            entry.row.sequence,
            number,
            entry.row.klass,
            entry.row.priority,
            entry.pause_seconds,
            entry.reference_cpu_seconds,
            entry.spec,
            claim.at,
        )

    def start(self, item: Start) -> bool:
        entry = self._jobs.get(item.job)
        if entry is None:
            return False
        place = (entry.row.attempt, entry.row.pilot, entry.row.state)
        if place != (item.attempt, item.pilot, JobState.LEASED):
            return False
        tried = entry.attempts[item.attempt]
        entry.attempts[item.attempt] = replace(tried, started_at=item.at)
        self.change(entry, item.at, state=JobState.RUNNING)
        return True

    def select(self, query: JobQuery) -> list[JobRow]:
        rows = [row for row in self.rows() if _matches(query, row)]
        return (rows[::-1] if query.newest else rows)[: query.limit]

    def counts(self, experiment: str | None, batch: str | None) -> dict[JobState, int]:
        return dict(
            Counter(
                row.state
                for row in self.rows()
                if experiment in (None, row.experiment) and batch in (None, row.batch)
            )
        )


def _matches(query: JobQuery, row: JobRow) -> bool:
    if query.after is not None:
        beyond = row.sequence < query.after if query.newest else row.sequence > query.after
        if not beyond:
            return False
    return (
        query.state in (None, row.state)
        and query.experiment in (None, row.experiment)
        and query.batch in (None, row.batch)
        and all(row.labels.get(key) == value for key, value in query.labels)
    )
