"""Reports become results: outputs checked, receipt signed, committed, answered."""

import logging
from collections.abc import Sequence

from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.job import JobSpec, JobState, Outcome
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Key, Lease
from job_manager_adapter.services import frame_text as texts
from job_manager_adapter.services.context import Signer
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.links import Links, required_outputs
from job_manager_adapter.services.receipts import Receipts, tell_due
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.records import Finish, Finished

log = logging.getLogger(__name__)
Reported = tuple[Pilot, Report, Lease | None]
"""The lease as it was when the report came: the pilot may move to another manager meanwhile."""


class Reports:
    def __init__(self, dispatcher: Dispatcher, signer: Signer, links: Links) -> None:
        self._dispatcher = dispatcher
        self._receipts = Receipts(dispatcher.clock, dispatcher.ids, signer)
        self._links = links
        self._under_way: set[tuple[str, Key]] = set()
        """By pilot: a stranger's report must not make us deaf to the owner's."""

    def take(self, pilot: Pilot, reports: Sequence[Report]) -> None:
        """Each is answered by a verdict once that is committed; repetitions meanwhile are not."""
        for report in reports:
            key = (report.job, report.attempt)
            if (pilot.id, key) in self._under_way:
                continue
            self._under_way.add((pilot.id, key))
            lease = pilot.leases.get(key)
            if lease is not None:
                lease.ending = True
            if _is_quick(lease, report):
                self._dispatcher.tasks.gather(self._finish, (pilot, report, lease))
            else:  # nobody else's report waits for the disk
                self._dispatcher.spawn(self._finish([(pilot, report, lease)]))

    async def _finish(self, reports: Sequence[Reported]) -> None:
        try:
            good = [item for item in reports if await self._checked(*item)]
            if not good:
                return
            finishes = self._finishes(good)
            failed = [item.report.job for item in finishes if item.receipt is None]
            with self._dispatcher.resting.ending(failed):
                results = await self._dispatcher.store.finish(finishes)
        except StoreError as error:
            log.warning("%d reports wait for the store: %s", len(reports), error)
            return  # the pilots repeat them
        finally:
            self._not_under_way(reports)
        for (pilot, *_), finish, result in zip(good, finishes, results, strict=True):
            self._finished(pilot, finish, result)
        if any(item.requeued for item in results):
            self._dispatcher.rematch()
        for pilot in {pilot.id: pilot for pilot, *_ in good}.values():
            self._dispatcher.wake(pilot.id)

    def _not_under_way(self, reports: Sequence[Reported]) -> None:
        for pilot, report, lease in reports:
            self._under_way.discard((pilot.id, (report.job, report.attempt)))
            if lease is not None:
                lease.ending = False

    async def _checked(self, pilot: Pilot, report: Report, lease: Lease | None) -> bool:
        """Whether its outputs are here; otherwise it is rejected."""
        if lease is None:  # ended before, or never was: the store knows
            return True
        if problem := await self._problem(lease, report):
            self._reject(pilot, report, problem)
        return not problem

    def _finishes(self, reports: Sequence[Reported]) -> list[Finish]:
        """With their receipts."""
        at = self._dispatcher.clock.time()
        drafts = [
            lease and self._receipts.draft(pilot, lease, item) for pilot, item, lease in reports
        ]
        signed = iter(self._receipts.sign([draft for draft in drafts if draft]))
        return [
            Finish(pilot.id, item, at, next(signed) if draft else None, _began(lease))
            for (pilot, item, lease), draft in zip(reports, drafts, strict=True)
        ]

    async def _problem(self, lease: Lease, report: Report) -> str:
        if report.outcome is Outcome.SUCCEEDED:
            if lease.required is None:
                specs = await self._dispatcher.store.specs([lease.job])
                spec = JobSpec.model_validate_json(specs[lease.job])
                lease.required = required_outputs(spec)
            missing = sorted(set(lease.required) - {output.name for output in report.outputs})
            if missing:
                return f"declared outputs are not in the report: {', '.join(missing)}"
        if not report.outputs:
            return ""
        absent = await self._links.outputs_present(report.job, report.attempt, report.outputs)
        return f"outputs are not stored as reported: {', '.join(absent)}" if absent else ""

    def _reject(self, pilot: Pilot, report: Report, problem: str) -> None:
        verdict = texts.verdict(report.job, report.attempt, VerdictKind.REJECTED, problem)
        self._dispatcher.outbox(pilot.id).add_verdict(verdict)
        self._dispatcher.wake(pilot.id)

    def _finished(self, pilot: Pilot, finish: Finish, result: Finished) -> None:
        report, outbox = finish.report, self._dispatcher.outbox(pilot.id)
        outbox.add_verdict(texts.verdict(report.job, report.attempt, result.verdict, result.reason))
        key = (report.job, report.attempt)
        if result.verdict is not VerdictKind.ACCEPTED and key in pilot.leases:
            log.error("lease of %s attempt %d disagreed", *key)
        elif result.verdict is VerdictKind.REJECTED:
            self._dispatcher.refresh(pilot)
            return  # the attempt is another pilot's, whose lease lives on
        lease = self._dispatcher.drop(key)
        if result.state is None:
            if lease is not None and report.outcome is Outcome.SUCCEEDED:
                self._dispatcher.spawn(tell_due(self._dispatcher, pilot))
            return
        if session := self._dispatcher.sessions.get(pilot.id):
            session.accepted()
        if result.state is JobState.SUCCEEDED and finish.receipt:
            outbox.add_receipt(finish.receipt.id, finish.receipt.body)
        self._dispatcher.ended[report.outcome.value] += 1
        self._dispatcher.timings.run.observe(report.usage.wall_seconds)
        experiment = lease.klass.experiment if lease else None
        detail = report.failure_class.value if report.failure_class else ""
        if report.failure_class:
            self._dispatcher.failed[report.failure_class] += 1
        self._dispatcher.events.emit("job", report.job, result.state.value, experiment, detail)
        self._dispatcher.requeued(result.requeued, report.job, pilot.id, result.failures)


def _is_quick(lease: Lease | None, report: Report) -> bool:
    """Whether no file has to be looked at, and nothing read from the store."""
    known = lease is None or lease.required is not None or report.outcome is not Outcome.SUCCEEDED
    return known and not any(output.size for output in report.outputs)


def _began(lease: Lease | None) -> float | None:
    return lease.began_at if lease else None
