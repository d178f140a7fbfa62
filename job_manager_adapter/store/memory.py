"""The store in memory: same semantics, nothing kept. For tests and simulations."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Outcome
from job_manager_adapter.core import attempts as core
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store import records as r
from job_manager_adapter.store.base import StoreError, StoreStats
from job_manager_adapter.store.fleet_records import PilotRow
from job_manager_adapter.store.memory_fleet import MemoryFleet
from job_manager_adapter.store.memory_jobs import Entry, JobTable


class MemoryStore(MemoryFleet):
    """A `store.base.Store`. Each call is one step: nobody sees half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = StoreStats()
        self._table = JobTable()
        self._submissions: dict[tuple[str, str], tuple[str, float, r.Submitted]] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def backup(self, target: Path) -> None:
        raise StoreError(
            f"a store in memory cannot be backed up to {target}",
            remedy="use SQLite",
            code=ErrorCode.CONFLICT,
        )

    async def check(self) -> list[str]:
        return []

    # Submission and leases

    async def submit(self, many: Sequence[r.Submission]) -> list[r.Submitted]:
        return [self._submit(item) for item in many]

    def _submit(self, item: r.Submission) -> r.Submitted:
        key = (item.owner, item.key or "")
        if item.key is not None and key in self._submissions:
            digest, _, known = self._submissions[key]
            return r.Submitted(known.batch, known.jobs, False, conflict=digest != item.digest)
        counts: dict[tuple[int, int], r.Waiting] = {}
        for job in item.jobs:
            entry = self._table.insert(item, job)
            place = (entry.row.klass, job.priority)
            waiting = counts.get(place) or replace(self._waiting(entry), count=0)
            counts[place] = replace(waiting, count=waiting.count + 1)
        ids = tuple(job.id for job in item.jobs)
        result = r.Submitted(item.batch, ids, True, tuple(counts.values()))
        if item.key is not None:
            self._submissions[key] = (item.digest, item.at, result)
        return result

    def _waiting(self, entry: Entry) -> r.Waiting:
        klass = self._table.klass(entry.row.klass)
        return r.Waiting(klass, entry.row.priority, 1, entry.row.sequence)

    async def claim(self, many: Sequence[r.Claim]) -> list[list[r.Claimed]]:
        return [
            [
                self._table.lease(entry, item)
                for entry in self._table.next(item.klass, item.count, item.without)
            ]
            for item in many
        ]

    async def start(self, many: Sequence[r.Start]) -> list[bool]:
        return [self._table.start(item) for item in many]

    # Ends

    async def finish(self, many: Sequence[r.Finish]) -> list[r.Finished]:
        return [self._finish(item) for item in many]

    def _finish(self, item: r.Finish) -> r.Finished:
        report = item.report
        entry, standing = self._standing(report.job, report.attempt)
        judgement = core.judge(standing, item.pilot, report)
        if entry is not None and judgement.record and entry.attempts[report.attempt].late is None:
            tried = entry.attempts[report.attempt]
            entry.attempts[report.attempt] = replace(tried, late=Outcome(report.outcome))
        if entry is None or standing is None or judgement.ending is None:
            return r.Finished(judgement.verdict, judgement.reason)
        ending = judgement.ending
        receipt = item.receipt if ending.state is JobState.SUCCEEDED else None
        self._end(entry, ending, item.at, report.message, item, receipt)
        self.count_result(standing.pilot, ending)
        if receipt:
            self.grant(receipt)
        requeued = self._waiting(entry) if ending.state is JobState.WAITING else None
        failures = ending.failures(standing)
        return r.Finished(VerdictKind.ACCEPTED, judgement.reason, ending.state, requeued, failures)

    def _standing(self, job: str, attempt: int) -> tuple[Entry | None, core.Standing | None]:
        entry = self._table.get(job)
        if entry is None or attempt not in entry.attempts:
            return entry, None
        row, tried = entry.row, entry.attempts[attempt]
        open_states = (JobState.LEASED, JobState.RUNNING)
        return entry, core.Standing(
            state=row.state,
            max_attempts=row.max_attempts,
            charged=row.charged,
            uncharged=row.uncharged,
            pilot=tried.pilot,
            open=tried.ended_at is None and row.attempt == attempt and row.state in open_states,
            accepted=tried.accepted,
        )

    def _end(
        self,
        entry: Entry,
        ending: core.Ending,
        at: float,
        message: str,
        finish: r.Finish | None = None,
        receipt: r.SignedReceipt | None = None,
    ) -> None:
        tried = entry.attempts[entry.row.attempt]
        tried = replace(
            tried,
            ended_at=at,
            outcome=ending.outcome,
            failure_class=ending.failure_class,
            charged=ending.charged and ending.failure_class is not None,
            message=message,
            granted=receipt.granted if receipt else None,
        )
        if finish is not None:
            report = finish.report
            tried = replace(
                tried,
                started_at=tried.started_at or finish.started_at,
                accepted=True,
                exit_code=report.exit_code,
                signal=report.signal,
                usage=report.usage,
                outputs=report.outputs,
            )
        entry.attempts[entry.row.attempt] = tried
        self._table.change(
            entry,
            at,
            state=ending.state,
            pilot=None,
            failure_class=ending.failure_class,
            message=message,
            charged=entry.row.charged + ending.charged,
            uncharged=entry.row.uncharged + (not ending.charged),
        )

    async def release(self, many: Sequence[r.Release]) -> list[r.Released]:
        return [self.release_one(item) for item in many]

    def release_one(self, item: r.Release) -> r.Released:
        entry, standing = self._standing(item.job, item.attempt)
        ending = core.end(standing, item.failure_class) if standing else None
        if entry is None or standing is None or ending is None:
            return r.Released(item.job, item.attempt)
        self._end(entry, ending, item.at, item.message)
        requeued = self._waiting(entry) if ending.state is JobState.WAITING else None
        failures = ending.failures(standing)
        return r.Released(item.job, item.attempt, standing.pilot, ending.state, requeued, failures)

    def held_by(self, pilot: str) -> list[tuple[str, int]]:
        return [(entry.row.id, entry.row.attempt) for entry in self._table.held_by(pilot)]

    # What users change

    async def cancel(self, many: Sequence[r.Selected]) -> list[r.Cancelled]:
        return [self._cancel(item) for item in many]

    def _cancel(self, item: r.Selected) -> r.Cancelled:
        entry = self._table.get(item.job)
        if entry is None or item.experiment not in (None, entry.row.experiment):
            return r.Cancelled(item.job, "no such job")
        row = entry.row
        if row.state.final:
            return r.Cancelled(item.job, f"it is {row.state} already")
        message = "cancelled by its owner"
        waiting = self._waiting(entry) if row.state is JobState.WAITING else None
        _, standing = self._standing(item.job, row.attempt)
        ending = core.end(standing, FailureClass.CANCELLED) if standing else None
        if ending:
            self._end(entry, ending, item.at, message)
        self._table.change(
            entry,
            item.at,
            state=JobState.CANCELLED,
            pilot=None,
            failure_class=FailureClass.CANCELLED,
            message=message,
        )
        pilot = None if waiting else row.pilot
        return r.Cancelled(item.job, "", row.experiment, row.state, pilot, row.attempt, waiting)

    async def retry(self, many: Sequence[r.Selected]) -> list[r.Retried]:
        return [self._retry(item) for item in many]

    def _retry(self, item: r.Selected) -> r.Retried:
        entry = self._table.get(item.job)
        if entry is None or item.experiment not in (None, entry.row.experiment):
            return r.Retried(item.job, "no such job")
        state = entry.row.state
        if state not in (JobState.FAILED, JobState.CANCELLED):
            return r.Retried(item.job, f"it is {state}; only failed and cancelled jobs are retried")
        self._table.change(
            entry,
            item.at,
            state=JobState.WAITING,
            charged=0,
            uncharged=0,
            failure_class=None,
            message="",
        )
        return r.Retried(item.job, "", self._waiting(entry))

    async def forget(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            entry = self._table.get(job)
            if entry is not None and entry.row.state.final:
                self._table.delete(entry)

    async def forget_keys(self, before: float) -> int:
        known = {row.batch for row in self._table.rows()}
        old = [
            key
            for key, (_, at, result) in self._submissions.items()
            if at < before and result.batch not in known
        ]
        for key in old:
            del self._submissions[key]
        return len(old)

    # Queries

    async def job(self, job: str) -> r.JobRow | None:
        entry = self._table.get(job)
        return entry.row if entry else None

    async def jobs(self, query: r.JobQuery) -> list[r.JobRow]:
        return self._table.select(query)

    async def attempts(self, job: str) -> list[r.AttemptRow]:
        entry = self._table.get(job)
        tried = entry.attempts.values() if entry else ()
        return [replace(row, host=self.host_of(row.pilot)) for row in tried]

    async def specs(self, jobs: Sequence[str]) -> dict[str, bytes]:
        found = ((job, self._table.get(job)) for job in jobs)
        return {job: entry.spec for job, entry in found if entry}

    async def counts(self, experiment: str | None, batch: str | None) -> dict[JobState, int]:
        return self._table.counts(experiment, batch)

    async def waiting_ahead(self, row: r.JobRow) -> int:
        place = (-row.priority, row.sequence)
        return sum(
            (-other.priority, other.sequence) < place
            for other in self._table.rows()
            if other.state is JobState.WAITING and other.experiment == row.experiment
        )

    async def finished_before(self, at: float, limit: int) -> list[tuple[str, int]]:
        old = [
            (entry.row.id, entry.row.attempt)
            for entry in self._table.entries()
            if entry.row.state.final and entry.row.changed_at < at and entry.heard
        ]
        return old[:limit]

    async def classes(self) -> list[RequirementClass]:
        return self._table.classes()

    async def waiting(self) -> list[r.Waiting]:
        counts: dict[tuple[int, int], r.Waiting] = {}
        for entry in self._table.entries():
            if entry.row.state is JobState.WAITING:
                place = (entry.row.klass, entry.row.priority)
                waiting = counts.get(place) or replace(self._waiting(entry), count=0)
                counts[place] = replace(waiting, count=waiting.count + 1)
        return [counts[place] for place in sorted(counts)]

    async def open_leases(self) -> list[r.OpenLease]:
        return [entry.lease() for entry in self._table.entries() if entry.row.pilot is not None]

    async def holders(self) -> list[PilotRow]:
        held = {entry.row.pilot for entry in self._table.entries()}
        everybody = await self.pilots(retired=False, limit=len(self._pilots))
        return [row for row in everybody if row.id in held]

    async def upstream_due(self, experiment: str, limit: int) -> list[r.UpstreamDue]:
        due = []
        for entry in self._table.entries():
            row = entry.row
            if row.experiment == experiment and row.upstream and not entry.heard:
                tried = await self.attempts(row.id)
                last = tried[-1] if tried else None
                due.append(r.UpstreamDue(row.id, row.upstream, row.state, last))
        return due[:limit]

    async def upstream_open(self, experiment: str) -> list[tuple[str, str]]:
        return [
            (row.id, row.upstream)
            for row in self._table.rows()
            if row.experiment == experiment and row.upstream and not row.state.final
        ]

    async def upstream_told(self, told: Sequence[tuple[str, JobState]]) -> None:
        for job, state in told:
            if entry := self._table.get(job):
                entry.told = state
