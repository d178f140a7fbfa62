"""Between the store and an experiment's own scheduler: jobs come in, what became of them goes out.

The scheduler owns its jobs. What it has not yet heard stands in the database (`upstream_due`), so
neither an outage upstream nor a restart here loses a word; both only repeat it.
"""

import asyncio
import logging
import random
from collections.abc import Sequence

from copilot_agent.protocol.job import JobState, Outcome
from job_manager_adapter.adapters.base import Adapter, Result, Room, UpstreamError
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.jobs import Jobs, new_job
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.records import Submission, UpstreamDue
from job_manager_adapter.views import Role

log = logging.getLogger(__name__)
BATCH = 200
MAX_FAILURES = 3
"""In one round; then the scheduler is taken to be away."""
_OUTCOMES = {
    JobState.SUCCEEDED: Outcome.SUCCEEDED,
    JobState.FAILED: Outcome.FAILED,
    JobState.CANCELLED: Outcome.CANCELLED,
}


class Upstream:
    """One experiment's."""

    def __init__(
        self, experiment: str, adapter: Adapter, dispatcher: Dispatcher, jobs: Jobs
    ) -> None:
        self._experiment = experiment
        self._adapter = adapter
        self._dispatcher = dispatcher
        self._jobs = jobs
        self._principal = Principal(f"adapter:{experiment}", Role.EXPERIMENT, experiment)

    async def run(self) -> None:
        """Until cancelled. A source without jobs of its own has nothing to do."""
        seconds = self._adapter.poll_seconds
        if seconds is None:
            return
        started, failures = False, 0
        while True:
            try:
                if not started:
                    await self._adapter.start()
                    started = True
                await self.sync()
                failures = 0
            except (UpstreamError, StoreError) as error:
                log.warning("scheduler of %s: %s", self._experiment, error)
                failures += 1
            except Exception:  # others' code: its mistakes must not stop the manager
                log.exception("adapter of %s", self._experiment)
                failures += 1
            await asyncio.sleep(pause(seconds, failures, random.random()))  # noqa: S311 - no secret

    async def sync(self) -> None:
        """One round: tell, cancel, renew, fetch. Raises UpstreamError, StoreError.

        Of several managers on one database, one does it.
        """
        if not self._dispatcher.peers.leads:
            return
        await self._tell()
        await self._cancel()
        await self._fetch()

    async def _tell(self) -> None:
        store, failed = self._dispatcher.store, list[UpstreamError]()
        for due in await store.upstream_due(self._experiment, BATCH):
            try:
                await self._tell_one(due)
            except UpstreamError as error:  # one job's trouble does not hold up the others
                failed.append(error)
                if len(failed) == MAX_FAILURES:
                    break
                continue
            await store.upstream_told([(due.job, due.state)])
        if failed:
            raise failed[0]

    async def _tell_one(self, due: UpstreamDue) -> None:
        match due.state:
            case JobState.WAITING | JobState.LEASED:
                await self._adapter.adopted([due.upstream])
            case JobState.RUNNING:
                host = due.attempt.host if due.attempt else ""
                await self._adapter.started(due.upstream, host)
            case JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
                await self._adapter.finished(due.upstream, _result(due))

    async def _cancel(self) -> None:
        opened = {
            upstream: job
            for job, upstream in await self._dispatcher.store.upstream_open(self._experiment)
        }
        gone = [opened[item] for item in await self._adapter.cancelled() if item in opened]
        if gone:
            await self._jobs.cancel(self._principal, gone)
        alive = [upstream for upstream, job in opened.items() if job not in gone]
        if alive:
            await self._adapter.renew(alive)

    async def _fetch(self) -> None:
        for sourced in await self._adapter.fetch(self._room()):
            spec = sourced.spec.model_copy(update={"experiment": self._experiment})
            submission = Submission(
                batch=self._dispatcher.ids.make("b"),
                jobs=(new_job(self._dispatcher.ids.make("j"), spec, sourced.upstream_id),),
                at=self._dispatcher.clock.time(),
                owner=f"upstream:{self._experiment}",
                key=sourced.upstream_id,
            )
            (result,) = await self._dispatcher.store.submit([submission])
            for item in result.waiting:
                self._dispatcher.count(item, item.count)
            await self._adapter.adopted([sourced.upstream_id])
        self._dispatcher.rematch()

    def _room(self) -> Sequence[Room]:
        """Room that no waiting job of this experiment will take."""
        waiting = self._dispatcher.matcher.waiting().get(self._experiment, 0)
        rooms = []
        here = self._dispatcher.matcher.rooms().items()
        for room, count in (*here, *self._dispatcher.peers.rooms()):
            if not room.serves(self._experiment):
                continue
            free = max(count - waiting, 0)
            waiting = max(waiting - count, 0)
            if free and room.cores > 0:
                rooms.append(
                    Room(
                        free,
                        room.cores,
                        room.memory_mib,
                        room.disk_mib,
                        room.platform,
                        room.cpu_flags,
                    )
                )
        return rooms


def pause(seconds: float, failures: int, chance: float) -> float:
    """Until the next round: `seconds`, or doubling to a minute more, half of it by chance."""
    if not failures:
        return seconds
    full = min(seconds * 2.0 ** min(failures, 30), 60.0 + seconds)
    return full * (0.5 + 0.5 * chance)


def _result(due: UpstreamDue) -> Result:
    outcome, attempt = _OUTCOMES[due.state], due.attempt
    if attempt is None:
        return Result(outcome)
    return Result(
        outcome=outcome,
        exit_code=attempt.exit_code,
        failure_class=attempt.failure_class,
        message=attempt.message,
        usage=attempt.usage,
        outputs=attempt.outputs,
    )
