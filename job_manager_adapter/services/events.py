"""The event stream: a bounded journal in the database, and live subscribers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import TypeAdapter

from job_manager_adapter.services.context import Clock
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.store.base import Store, StoreError
from job_manager_adapter.store.records import JournalEntry
from job_manager_adapter.views import Event, Role

_EVENTS: TypeAdapter[list[Event]] = TypeAdapter(list[Event])
_BACKLOG = 10_000
"""Events a slow subscriber may lag behind before it is caught up from the journal."""
_BATCH = 1000
_FLUSH_SECONDS = 0.05


class Events:
    """Events are told to subscribers after they are in the journal, so ids never come twice."""

    def __init__(self, store: Store, clock: Clock, keep: int = 100_000) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._pending: list[Event] = []
        self._next = 1
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._next = await self._store.journal_last() + 1

    def emit(
        self,
        kind: Literal["job", "pilot", "host", "fleet"],
        subject: str,
        state: str,
        experiment: str | None = None,
        detail: str = "",
    ) -> None:
        """Never waits; the journal follows within a moment."""
        at = datetime.fromtimestamp(self._clock.time(), UTC)
        self._pending.append(
            Event.model_construct(
                id=self._next,
                at=at,
                kind=kind,
                subject=subject,
                state=state,
                experiment=experiment,
                detail=detail,
            )
        )
        self._next += 1
        self._wake.set()

    async def run(self) -> None:
        """Writes the journal, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_FLUSH_SECONDS)  # let a batch gather
            try:
                await self.flush()
            except StoreError:
                await asyncio.sleep(1.0)  # kept, tried again; the store's trouble is told elsewhere

    async def flush(self) -> None:
        """What was emitted is in the journal, and then told."""
        self._wake.clear()
        while self._pending:
            self._writing = asyncio.create_task(self._write())
            await asyncio.shield(self._writing)  # half a step would be written again later

    async def _write(self) -> None:
        """One batch, as one step: in the journal, told, and no longer pending."""
        async with self._lock:
            batch = self._pending[:_BATCH]
            if not batch:
                return
            entry = JournalEntry(batch[0].id, batch[-1].id, _EVENTS.dump_json(batch))
            try:
                first = await self._store.append_journal(entry, self._keep)
            except StoreError:
                self._wake.set()
                raise
            del self._pending[: len(batch)]
            if moved := first - batch[0].id:  # behind what other managers wrote
                batch = _renumbered(batch, first)
                self._pending = _renumbered(self._pending, batch[-1].id + 1)
                self._next += moved
            self._publish(batch)

    async def grown(self, last: int) -> None:
        """Other managers wrote the journal up to this event."""
        async with self._lock:
            known = self._next - 1 - len(self._pending)
            if last <= known:
                return
            self._pending = _renumbered(self._pending, last + 1)
            self._next += last - known
            if self._subscribers:
                self._publish([event async for event in self._catch_up(known)])

    def _publish(self, batch: list[Event]) -> None:
        for queue in self._subscribers:
            for event in batch:
                if queue.qsize() >= _BACKLOG:
                    break  # it notices the gap by the ids
                queue.put_nowait(event)

    def subscribe(self, principal: Principal, after: int | None = None) -> AsyncIterator[Event]:
        """Events the caller may see, from the one after `after` (None: from now), for ever.

        A subscriber that falls far behind is caught up from the journal; ids have gaps.
        """
        seen = after if after is not None else self._next - 1 - len(self._pending)
        return self._follow(principal, seen)

    async def _follow(self, principal: Principal, seen: int) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            async for event in self._catch_up(seen):
                seen = event.id
                if _visible(principal, event):
                    yield event
            while (live := await queue.get()) is not None:
                if live.id > seen + 1:
                    async for event in self._catch_up(seen):
                        seen = event.id
                        if _visible(principal, event):
                            yield event
                if live.id > seen:
                    seen = live.id
                    if _visible(principal, live):
                        yield live
        finally:
            self._subscribers.discard(queue)

    async def _catch_up(self, seen: int) -> AsyncIterator[Event]:
        while entries := await self._store.journal(seen, 20):
            for entry in entries:
                for event in _renumbered(_EVENTS.validate_json(entry.body), entry.first):
                    if event.id > seen:
                        yield event
                seen = max(seen, entry.last)

    async def close(self) -> None:
        """Writes what is left and ends the subscriptions."""
        await self.flush()
        for queue in self._subscribers:
            queue.put_nowait(None)


def _renumbered(events: list[Event], first: int) -> list[Event]:
    """What is numbered right already stays as it is."""
    if not events or events[0].id == first:
        return events
    return [event.model_copy(update={"id": first + i}) for i, event in enumerate(events)]


def _visible(principal: Principal, event: Event) -> bool:
    if principal.role is Role.OPERATOR:
        return True
    return event.experiment is not None and principal.may_see(event.experiment)
