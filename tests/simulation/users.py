"""What people do: submit, cancel, retry, drain; a request without an answer is made again."""

from collections.abc import Callable, Sequence
from typing import Any

from copilot_agent.protocol.job import JobSpec, Limits
from job_manager_adapter.services.build import Services
from job_manager_adapter.services.jobs import JobFilter
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import (
    Changed,
    DrainRequest,
    JobView,
    Role,
    SubmitReply,
    SubmitRequest,
)
from tests.simulation.ledger import Ledger
from tests.simulation.manager import FINAL, Manager

OPERATOR = Principal("t-operator", Role.OPERATOR)
LHC = Principal("t-lhc", Role.EXPERIMENT, "lhc")


def job_spec(experiment: str, seconds: float, failing: float, attempts: int, pause: int) -> JobSpec:
    """The simulated sandbox reads the command."""
    return JobSpec(
        experiment=experiment,
        command=("payload", f"{seconds:.1f}", f"{failing:.2f}"),
        max_attempts=attempts,
        limits=Limits(pause_seconds=pause),
    )


class Users:
    def __init__(self, manager: Manager, ledger: Ledger) -> None:
        self._manager = manager
        self._ledger = ledger
        self._universe = manager.universe
        self.waiting = 0
        """Requests that have not been answered yet."""

    def _again(self, action: Any, *arguments: Any) -> None:
        self._universe.after(self._universe.random.uniform(0.5, 4.0), action, *arguments)

    # ----- jobs

    def submit(self, key: str, specs: Sequence[JobSpec]) -> None:
        self.waiting += 1
        body = SubmitRequest(jobs=tuple(specs), idempotency_key=key).model_dump_json()
        self._submit(body, self._universe.now)

    def _submit(self, body: str, asked: float) -> None:
        def work(services: Services) -> Any:
            return services.jobs.submit(LHC, SubmitRequest.model_validate_json(body))

        def done(reply: SubmitReply) -> None:
            self.waiting -= 1
            for job in reply.jobs:
                self._universe.note("user", f"submitted {job}")
                self._ledger.submitted[job] = self._universe.now
                self._ledger.asked[job] = asked

        self._manager.ask(work, done, lambda: self._again(self._submit, body, asked))

    def cancel(self, job: str) -> None:
        self.waiting += 1
        self._cancel(job)

    def _cancel(self, job: str) -> None:
        def done(reply: Changed) -> None:
            self.waiting -= 1
            for each in reply.changed:
                self._universe.note("user", f"cancelled {each}")
                self._ledger.cancelled[each] = self._universe.now
                self._ledger.cancels[each].append(self._universe.now)

        self._manager.ask(
            lambda services: services.jobs.cancel(OPERATOR, [job]),
            done,
            lambda: self._again(self._cancel, job),
        )

    def retry(self, job: str, after: float) -> None:
        self.waiting += 1
        self._universe.after(after, self._retry, job)

    def _retry(self, job: str) -> None:
        def done(reply: Changed) -> None:
            self.waiting -= 1
            for each in reply.changed:
                self._universe.note("user", f"retried {each}")
                self._ledger.cancelled.pop(each, None)

        self._ledger.retried[job].append(self._universe.now)
        self._manager.ask(
            lambda services: services.jobs.retry(OPERATOR, [job]),
            done,
            lambda: self._again(self._retry, job),
        )

    def drain(self, host: str, until: float) -> None:
        """Undone then, or later: nobody undoes a drain before it is answered."""
        if self._drain(host, False, lambda: self._undrain(host, until)):
            self._ledger.trouble("drain", host, 0.0)

    def _undrain(self, host: str, until: float) -> None:
        wait = max(0.0, until - self._universe.now)
        self._universe.after(wait, self._drain, host, True, lambda: None)

    def _drain(self, host: str, undo: bool, then: Callable[[], None]) -> bool:
        """Whether there is anybody to drain."""
        pilots = [pilot for pilot, name in self._manager.pilot_hosts.items() if name == host]
        if not pilots:
            return False

        def done(_: object) -> None:
            self._universe.note("user", f"drain of {host}, undo {undo}")
            self._ledger.trouble_over("drain", host)
            then()

        self._manager.ask(
            lambda services: services.pilots.drain(OPERATOR, pilots[-1], DrainRequest(undo=undo)),
            done,
            lambda: self._again(self._drain, host, undo, then),
        )
        return True

    # ----- looking

    def look(self) -> None:
        """One page of jobs: which are final."""

        def done(page: Any) -> None:
            for view in page.items:
                if view.state in FINAL:
                    seen = (self._universe.now, view.id, view.state)
                    self._ledger.finals_seen.append(seen)

        self._manager.ask(
            lambda services: services.jobs.list(OPERATOR, JobFilter()), done, lambda: None
        )

    def look_at_all(self) -> None:
        """The end: each job with its attempts, leases, credit."""

        async def work(services: Services) -> tuple[list[JobView], int, float]:
            page = await services.jobs.list(OPERATOR, JobFilter(), limit=1000)
            views = [await services.jobs.get(OPERATOR, view.id) for view in page.items]
            receipts = (await services.credit.receipts(OPERATOR)).items
            granted = sum(receipt.statement.granted for receipt in receipts)
            return views, services.stats().leases_open, granted

        def done(found: tuple[list[JobView], int, float]) -> None:
            views, self._ledger.leases_left, self._ledger.credit = found
            self._ledger.final = {view.id: view for view in views}
            for view in views:
                if view.spec is not None:
                    self._ledger.pause_seconds[view.id] = view.spec.limits.pause_seconds

        self._manager.ask(work, done, lambda: self._again(self.look_at_all))
