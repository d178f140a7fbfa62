"""The event stream: a bounded journal in the database, and live subscribers."""

import asyncio
import json
from collections.abc import AsyncIterator
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
        self._pending: list[str] = []
        """Events in JSON, without their ids: those follow `_last`."""
        self._last = 0
        """Id of the last event in the journal."""
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._last = await self._store.journal_last()

    def emit(
        self,
        kind: Literal["job", "pilot", "host", "fleet"],
        subject: str,
        state: str,
        experiment: str | None = None,
        detail: str = "",
    ) -> None:
        """Never waits; the journal follows within a moment."""
        of = f',"experiment":"{experiment}"' if experiment else ""
        why = f',"detail":{json.dumps(detail)}' if detail else ""
        self._pending.append(
            f'{{"at":{self._clock.time()!r},"kind":"{kind}","subject":"{subject}"'
            f',"state":"{state}"{of}{why}}}'
        )
        if not self._wake.is_set():
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
            body = f"[{','.join(batch)}]".encode()
            entry = JournalEntry(self._last + 1, self._last + len(batch), body)
            try:
                first = await self._store.append_journal(entry, self._keep)
            except StoreError:
                self._wake.set()
                del self._pending[: -self._keep]  # more than these no journal holds
                raise
            del self._pending[: len(batch)]
            self._last = first + len(batch) - 1
            if self._subscribers:
                self._publish(_events(body, first))

    async def grown(self, last: int) -> None:
        """Other managers wrote the journal up to this event."""
        async with self._lock:
            known = self._last
            if last <= known:
                return
            self._last = last
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
        seen = self._last if after is None else after
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
                for event in _events(entry.body, entry.first):
                    if event.id > seen:
                        yield event
                seen = max(seen, entry.last)

    async def close(self) -> None:
        """Writes what is left and ends the subscriptions."""
        await self.flush()
        for queue in self._subscribers:
            queue.put_nowait(None)


def _events(body: bytes, first: int) -> list[Event]:
    """Their ids are where they stand in the journal."""
    found = json.loads(body)
    return _EVENTS.validate_python([event | {"id": id} for id, event in enumerate(found, first)])


def _visible(principal: Principal, event: Event) -> bool:
    if principal.role is Role.OPERATOR:
        return True
    return event.experiment is not None and principal.may_see(event.experiment)
