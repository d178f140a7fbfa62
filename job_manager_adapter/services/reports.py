"""Reports become results: outputs checked, receipt signed, committed, answered."""

import logging
from collections.abc import Sequence

from copilot_agent.protocol.frames import Report, Verdict, VerdictKind
from copilot_agent.protocol.job import JobSpec, JobState, Outcome
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.core import credit
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Key, Lease
from job_manager_adapter.services.context import Signer
from job_manager_adapter.services.dispatch import Dispatcher, required_outputs
from job_manager_adapter.services.links import Links
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.records import Finish, Finished

log = logging.getLogger(__name__)


class Reports:
    def __init__(self, dispatcher: Dispatcher, signer: Signer, links: Links) -> None:
        self._dispatcher = dispatcher
        self._signer = signer
        self._links = links
        self._under_way: set[tuple[str, Key]] = set()
        """By pilot: a stranger's report must not make us deaf to the owner's."""

    def take(self, pilot: Pilot, reports: Sequence[Report]) -> None:
        """Each is answered by a verdict once that is committed; repetitions meanwhile are not."""
        fresh = []
        for report in reports:
            key = (report.job, report.attempt)
            if (pilot.id, key) in self._under_way:
                continue
            self._under_way.add((pilot.id, key))
            fresh.append(report)
            if lease := pilot.leases.get(key):
                lease.ending = True
        if fresh:
            self._dispatcher.spawn(self._finish(pilot, fresh))

    async def _finish(self, pilot: Pilot, reports: list[Report]) -> None:
        try:
            finishes = [
                Finish(pilot.id, report, self._dispatcher.clock.time(), receipt)
                for report, receipt in await self._checked(pilot, reports)
            ]
            if not finishes:
                return
            failed = [item.report.job for item in finishes if item.receipt is None]
            with self._dispatcher.resting.ending(failed):
                results = await self._dispatcher.store.finish(finishes)
        except StoreError as error:
            log.warning("reports of %s wait for the store: %s", pilot.id, error)
            return  # the pilot repeats them
        finally:
            for report in reports:
                self._under_way.discard((pilot.id, (report.job, report.attempt)))
                if lease := pilot.leases.get((report.job, report.attempt)):
                    lease.ending = False
        for finish, result in zip(finishes, results, strict=True):
            self._finished(pilot, finish, result)
        self._dispatcher.refresh(pilot)
        self._dispatcher.rematch(None if any(item.requeued for item in results) else pilot.id)
        self._dispatcher.wake(pilot.id)

    async def _checked(
        self, pilot: Pilot, reports: Sequence[Report]
    ) -> list[tuple[Report, Receipt | None]]:
        """Reports whose outputs are here, each with its receipt; the others are rejected."""
        good: list[tuple[Report, Receipt | None]] = []
        for report in reports:
            lease = pilot.leases.get((report.job, report.attempt))
            if lease is None:  # ended before, or never was: the store knows
                good.append((report, None))
            elif problem := await self._problem(lease, report):
                self._reject(pilot, report, problem)
            else:
                good.append((report, self._receipt(pilot, lease, report)))
        return good

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
        verdict = Verdict(
            job=report.job,
            attempt=report.attempt,
            verdict=VerdictKind.REJECTED,
            reason=problem[:2000],
        )
        self._dispatcher.outbox(pilot.id).add_verdict(verdict)
        self._dispatcher.wake(pilot.id)

    def _receipt(self, pilot: Pilot, lease: Lease, report: Report) -> Receipt | None:
        if report.outcome is not Outcome.SUCCEEDED:
            return None
        clock = self._dispatcher.clock
        cores = lease.klass.requirements.cores
        wall = clock.monotonic() - lease.since
        cpu = credit.accepted_cpu(report.usage.cpu_seconds, wall, cores)
        statement = Statement(
            key=self._signer.public_key,
            id=self._dispatcher.ids.make("r"),
            enrolment=pilot.enrolment,
            launcher=pilot.launcher_key,
            pilot=pilot.id,
            experiment=lease.klass.experiment,
            job=lease.job,
            attempt=lease.attempt,
            cpu_seconds=cpu,
            granted=credit.granted(Outcome.SUCCEEDED, cpu, lease.reference_cpu_seconds),
            leased_at=lease.leased_at,
            accepted_at=clock.time(),
        )
        return Receipt(statement=statement, signature=self._signer.sign(statement.canonical()))

    def _finished(self, pilot: Pilot, finish: Finish, result: Finished) -> None:
        report, outbox = finish.report, self._dispatcher.outbox(pilot.id)
        outbox.add_verdict(
            Verdict(
                job=report.job,
                attempt=report.attempt,
                verdict=result.verdict,
                reason=result.reason,
            )
        )
        key = (report.job, report.attempt)
        if result.verdict is not VerdictKind.ACCEPTED and key in pilot.leases:
            log.error("lease of %s attempt %d disagreed", *key)
        elif result.verdict is VerdictKind.REJECTED:
            return  # the attempt is another pilot's, whose lease lives on
        lease = self._dispatcher.drop(key)
        if result.state is None:
            return
        if result.state is JobState.SUCCEEDED and finish.receipt:
            outbox.receipts.put(finish.receipt.statement.id, finish.receipt)
        self._dispatcher.ended[report.outcome.value] += 1
        experiment = lease.klass.experiment if lease else None
        detail = report.failure_class.value if report.failure_class else ""
        self._dispatcher.events.emit("job", report.job, result.state.value, experiment, detail)
        self._dispatcher.requeued(result.requeued, report.job, pilot.id, result.failures)
