"""What has to happen without anybody asking: leases that run out, lost pilots, retention."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.services import takeback
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.drains import Draining
from job_manager_adapter.services.events import Events
from job_manager_adapter.services.links import Links
from job_manager_adapter.services.upstream import Upstream
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.fleet_records import PilotChange
from job_manager_adapter.views import PilotState

log = logging.getLogger(__name__)
RETENTION_BATCH = 500
FORGET_SECONDS = 600.0
"""Pilots that are lost and hold nothing leave the memory after this; the database keeps them."""


class Housekeeping:
    def __init__(
        self,
        dispatcher: Dispatcher,
        events: Events,
        links: Links,
        draining: Draining,
        upstreams: Sequence[Upstream] = (),
    ) -> None:
        self._dispatcher = dispatcher
        self._events = events
        self._links = links
        self._draining = draining
        self._upstreams = upstreams
        self._lost: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        lease = self._dispatcher.config.policy.lease_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run())
            group.create_task(self._dispatcher.peers.run())
            group.create_task(self._sweep(group, min(lease / 10, 1.0)))
            group.create_task(self._repeat(self.look_after_pilots, min(lease / 2, 10.0)))
            group.create_task(self._repeat(self.recount, 5.0))
            group.create_task(self._repeat(self._draining.refresh, 5.0))
            group.create_task(self._repeat(self.retain, 600.0))
            for upstream in self._upstreams:
                group.create_task(upstream.run())

    async def _repeat(
        self, work: Callable[[], Coroutine[object, object, None]], seconds: float
    ) -> None:
        while True:
            try:
                await work()
            except StoreError as error:
                log.warning("%s waits for the store: %s", work.__name__, error)
            await asyncio.sleep(seconds)

    async def _sweep(self, group: asyncio.TaskGroup, seconds: float) -> None:
        """Expires leases. A manager that was itself stopped or swamped blames no pilot for it.

        A slow store is no reason to look at the clock less often.
        """
        loop = asyncio.get_running_loop()
        expiring: asyncio.Task[None] | None = None
        while True:
            due = loop.time() + seconds
            await asyncio.sleep(seconds)
            late = loop.time() - due
            if late > seconds:
                log.warning("this manager stood still for %.1f s; all leases last longer", late)
                self._dispatcher.leases.prolong(late)
            if expiring is None or expiring.done():
                expiring = group.create_task(self._expire_if_possible())

    async def _expire_if_possible(self) -> None:
        try:
            await self.expire()
        except StoreError as error:
            log.warning("expire waits for the store: %s", error)

    async def expire(self) -> None:
        """Takes back leases that ran out, and what is held beyond a drain's deadline."""
        await takeback.expire(self._dispatcher)
        await self._draining.enforce()

    async def look_after_pilots(self) -> None:
        """Notes who is lost, writes down who was seen, forgets who is long gone."""
        pilots = self._dispatcher.fleet.pilots
        for pilot in pilots.values():
            self._note(pilot)
        await self._write_down(list(pilots.values()))
        # only now: while the store was at it, one of them may have come back
        for name in [pilot.id for pilot in pilots.values() if self._is_long_gone(pilot)]:
            self._forget(name)

    def _note(self, pilot: Pilot) -> None:
        """Whether it is lost, for those who look on."""
        dispatcher = self._dispatcher
        if self._state(pilot) is not PilotState.LOST:
            self._lost.discard(pilot.id)
        elif pilot.id not in self._lost:
            self._lost.add(pilot.id)
            if pilot.seen is not None:
                self._events.emit("pilot", pilot.id, "lost")
                dispatcher.tallies["pilots_lost"] += 1
            dispatcher.matcher.withdraw(pilot.id)
        if pilot.idle:
            dispatcher.tidy(pilot.id)

    def _state(self, pilot: Pilot) -> PilotState:
        now, config = self._dispatcher.clock.monotonic(), self._dispatcher.config
        return pilot.state(now, config.policy.lease_seconds)

    def _is_long_gone(self, pilot: Pilot) -> bool:
        if pilot.seen is None:
            silent = not pilot.attached  # else its first frame is just being dealt with
        else:
            silent_for = self._dispatcher.clock.monotonic() - pilot.seen
            lease_seconds = self._dispatcher.config.policy.lease_seconds
            silent = silent_for > lease_seconds + FORGET_SECONDS
        gone = self._state(pilot) in (PilotState.LOST, PilotState.RETIRED)
        return pilot.idle and silent and gone

    async def _write_down(self, pilots: Sequence[Pilot]) -> None:
        """Who was heard of since the last time, and what the store did not take before."""
        news = [
            pilot
            for pilot in pilots
            if pilot.unwritten or (pilot.seen is not None and pilot.seen_at != pilot.noted_at)
        ]
        changes = [
            PilotChange(
                pilot.id,
                capabilities=pilot.capabilities if pilot.unwritten else None,
                paused=pilot.paused if pilot.unwritten else None,
                seen_at=pilot.seen_at,
            )
            for pilot in news
        ]
        await self._dispatcher.store.change_pilots(changes)
        for pilot, change in zip(news, changes, strict=True):
            pilot.noted_at, pilot.unwritten = change.seen_at, False

    def _forget(self, name: str) -> None:
        dispatcher = self._dispatcher
        if session := dispatcher.sessions.pop(name, None):
            session.close(None)
        dispatcher.matcher.withdraw(name)
        dispatcher.fleet.pilots.pop(name, None)
        dispatcher.outboxes.pop(name, None)
        self._lost.discard(name)

    async def recount(self) -> None:
        """Reads the counters anew after they were found wrong."""
        dispatcher = self._dispatcher
        if not (dispatcher.miscounted and dispatcher.quiet):
            return
        waiting = await dispatcher.store.waiting()
        if dispatcher.quiet:
            dispatcher.miscounted = False
            dispatcher.recount(waiting)

    async def retain(self) -> None:
        """Deletes jobs that have been final for long, with their files and idempotency keys."""
        dispatcher = self._dispatcher
        if not dispatcher.peers.leads:
            return
        before = dispatcher.clock.time() - dispatcher.config.retention_seconds
        while old := await dispatcher.store.finished_before(before, RETENTION_BATCH):
            for job, attempts in old:
                for attempt in range(1, attempts + 1):
                    await self._discard(job, attempt)
            await dispatcher.store.forget([job for job, _ in old])
        await dispatcher.store.forget_keys(before)

    async def _discard(self, job: str, attempt: int) -> None:
        try:
            await self._links.discard(job, attempt)
        except OSError as error:
            log.warning("files of %s, attempt %d stay: %s", job, attempt, error)
