"""Several managers on one database: what this one hears from the others, and does about it.

Every pilot is one manager's: the one that it attached to last. That manager alone keeps the clock
of its leases. What the others do to them in the database (a cancel, a ban, a report that came in by
an older connection) it hears; what they submit it hears too, and counts. News may be lost; then
everything is read again. `Alone` is the same for a database that has only one manager.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, assert_never

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import FailureClass, Phase
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.core.matching import Room
from job_manager_adapter.services import takeback
from job_manager_adapter.services.receipts import put_due, read_due
from job_manager_adapter.store.base import PeerStore, StoreError
from job_manager_adapter.store.fleet_records import Holdings, PilotRow
from job_manager_adapter.store.records import (
    NewsDrains,
    NewsEnded,
    NewsEvents,
    NewsMoved,
    NewsRecount,
    NewsRetired,
    NewsWaiting,
    OpenLease,
    PeerNews,
    Waiting,
)
from job_manager_adapter.views import PilotState

if TYPE_CHECKING:
    from job_manager_adapter.services.dispatch import Dispatcher
    from job_manager_adapter.services.drains import Draining

log = logging.getLogger(__name__)
TEND_SECONDS = 1.0
MAX_ROOMS = 200
"""Different ones that the leader hears of."""
LOOK_SECONDS = 5.0
"""Between two looks for jobs that wait unheard of."""
RETRY_SECONDS = 1.0
SEEN_SECONDS = 10.0
"""How often managers write down which of their pilots they saw."""


class Alone:
    """The only manager of its database."""

    @property
    def leads(self) -> bool:
        """Whether what one manager has to do for all is this one's."""
        return True

    async def start(self) -> None: ...

    async def run(self) -> None: ...

    async def took(self, row: PilotRow) -> Sequence[OpenLease]:  # noqa: ARG002
        return ()

    def rooms(self) -> Iterable[tuple[Room, int]]:
        """What room other managers' pilots have, as far as known, and how often."""
        return ()

    def state(self, row: PilotRow) -> PilotState:
        """Of a pilot that is not retired and not this manager's."""
        return PilotState.PAUSED if row.paused else PilotState.LOST


class Peers(Alone):
    def __init__(
        self,
        store: PeerStore,
        dispatcher: "Dispatcher",
        draining: "Draining",
        *,
        fetches: bool = False,
    ) -> None:
        """`fetches`: the leader asks schedulers for work, for the pilots of all managers."""
        self._store = store
        self._dispatcher = dispatcher
        self._draining = draining
        self._fetches = fetches
        self._posted = ""
        self._rooms: list[tuple[Room, int]] = []

    @property
    def leads(self) -> bool:
        return self._store.leading

    async def start(self) -> None:
        """Before the open leases are read: those of the dead are among them then."""
        await self._store.tend()
        await self._store.adopt()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._repeat(self._tend, TEND_SECONDS))
            group.create_task(self._repeat(self._look, LOOK_SECONDS))

    async def _repeat(
        self, work: Callable[[], Coroutine[object, object, None]], seconds: float
    ) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except StoreError as error:
                log.warning("%s waits for the store: %s", work.__name__.strip("_"), error)

    async def _tend(self) -> None:
        await self._store.tend()
        await self._store.adopt()
        if self._fetches:
            await self._share_rooms()

    async def _share_rooms(self) -> None:
        found = self._dispatcher.matcher.rooms()
        rooms = {room: count for room, count in found.items() if room.experiments is None}
        note = json.dumps([_row(*item) for item in islice(rooms.items(), MAX_ROOMS)])
        if note != self._posted:
            await self._store.post(note)
            self._posted = note
        notes = await self._store.notes() if self.leads else []
        self._rooms = [_room(*row) for text in notes for row in json.loads(text)]

    def rooms(self) -> Iterable[tuple[Room, int]]:
        return self._rooms

    # Pilots come and go

    async def took(self, row: PilotRow) -> Sequence[OpenLease]:
        """The pilot attaches here; what it holds.

        Also if it was this manager's: it may be so by an adoption of which the news is yet to come,
        or by an attach that failed.
        """
        leases = await self._store.take([row.id])
        await self._know({lease.klass for lease in leases})
        return leases

    def state(self, row: PilotRow) -> PilotState:
        """By what its manager writes down now and then."""
        seconds = self._dispatcher.config.policy.lease_seconds + SEEN_SECONDS
        silent = row.seen_at is None or self._dispatcher.clock.time() - row.seen_at > seconds
        if row.paused or silent:
            return super().state(row)
        drained = self._dispatcher.drains.of(row.id, row.host) is not None
        return PilotState.DRAINING if drained else PilotState.ALIVE

    async def _restore(self, holdings: Holdings) -> None:
        """What is not in memory gets a fresh grace, and is offered where its pilot is here."""
        await self._know({lease.klass for lease in holdings.leases})
        for row in holdings.rows:
            known = self._dispatcher.fleet.get(row.id)
            if known is None or known.elsewhere:
                self._dispatcher.remember(row)
        for item in holdings.leases:
            lease = self._dispatcher.restore(item)
            if lease is not None and item.pilot in self._dispatcher.sessions:
                self._dispatcher.spawn(self._offer(lease))

    async def _offer(self, lease: Lease) -> None:
        """The claim's answer was lost on the way from the database."""
        specs = await self._dispatcher.store.specs([lease.job])
        if lease.phase is None and self._dispatcher.leases.get(lease.key) is lease:
            lease.spec = specs[lease.job]
            self._dispatcher.outbox(lease.pilot).offers.put(lease.key, lease)
            self._dispatcher.wake(lease.pilot)

    async def _know(self, classes: set[int]) -> None:
        if not classes <= self._dispatcher.classes.keys():
            known = await self._dispatcher.store.classes()
            self._dispatcher.classes.update({klass.id: klass for klass in known})

    # News

    async def _listen(self) -> None:
        while True:
            news = await self._store.news()
            while True:
                try:
                    await self._heard(news)
                    break
                except StoreError as error:
                    log.warning("%s waits for the store: %s", type(news).__name__, error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _heard(self, news: PeerNews) -> None:
        match news:
            case NewsWaiting():
                await self._waiting(news)
            case NewsEnded():
                await self._ended(news)
            case NewsMoved(pilot):
                await self._moved(pilot)
            case NewsRetired(pilot):
                await self._retired(pilot)
            case NewsDrains():
                await self._draining.refresh()
            case NewsEvents(last):
                await self._dispatcher.events.grown(last)
            case NewsRecount():
                await self._recount(news)
            case _:
                assert_never(news)

    async def _waiting(self, news: NewsWaiting) -> None:
        await self._know({row[0] for row in news.rows})
        for klass, priority, count, head in news.rows:
            item = Waiting(self._dispatcher.classes[klass], priority, count, head)
            self._dispatcher.count(item, count)
        self._dispatcher.rematch()

    async def _ended(self, news: NewsEnded) -> None:
        pilot = self._holder(news)
        # read before anything is changed: where the store is away, all of this is done again
        due = await self._due(pilot) if not news.failure_class else ()
        if news.failure_class:
            cancelled = news.failure_class == FailureClass.CANCELLED
            kind = CommandKind.CANCEL if cancelled else CommandKind.ABANDON
            reason = "cancelled by its owner" if cancelled else news.failure_class
            self._dispatcher.take_away((news.job, news.attempt), kind, reason)
        else:
            self._dispatcher.drop((news.job, news.attempt))
        if pilot is None:
            return
        self._dispatcher.refresh(pilot)
        self._dispatcher.rematch(pilot.id)
        self._tell(pilot, due)

    async def _due(self, pilot: Pilot | None) -> Sequence[Receipt]:
        """Its newest receipt may have been another manager's to write; it is told here."""
        return await read_due(self._dispatcher.store, pilot.launcher_key) if pilot else ()

    def _tell(self, pilot: Pilot, due: Sequence[Receipt]) -> None:
        if due:
            put_due(self._dispatcher.outbox(pilot.id), due)
        self._dispatcher.wake(pilot.id)

    def _holder(self, news: NewsEnded) -> Pilot | None:
        lease = self._dispatcher.leases.get((news.job, news.attempt))
        return self._dispatcher.fleet.get(lease.pilot) if lease else None

    async def _moved(self, pilot: str) -> None:
        """Unless it has come back meanwhile."""
        if not await self._store.has(pilot):
            takeback.left(self._dispatcher, pilot)

    async def _retired(self, pilot: str) -> None:
        """What it held ends by news of its own."""
        row = await self._dispatcher.store.pilot(pilot)
        reason = ErrorCode.HOST_BANNED if row and row.banned else ErrorCode.PILOT_RETIRED
        takeback.dismiss(self._dispatcher, (pilot,), reason, ())

    # When news were lost

    async def _recount(self, news: NewsRecount) -> None:
        dispatcher = self._dispatcher
        if news.adopted:
            await self._store.take(list(dispatcher.sessions))
        before = [lease for lease in dispatcher.leases if not lease.ending]
        here = set(dispatcher.sessions)
        holdings = await self._store.mine()
        for name in here.difference(holdings.pilots):
            takeback.left(dispatcher, name)
        in_store = {(item.job, item.attempt) for item in holdings.leases}
        for lease in before:
            if lease.key not in in_store and not lease.ending:
                await self._gone(lease)
        await self._restore(holdings)
        await self._draining.refresh()
        await self._look()

    async def _gone(self, lease: Lease) -> None:
        """It has ended; by a report of which nobody here heard the end, or by another manager."""
        dispatcher = self._dispatcher
        pilot = dispatcher.fleet.get(lease.pilot)
        due = await self._due(pilot)
        if dispatcher.leases.get(lease.key) is not lease:
            return
        if lease.phase is Phase.REPORTING:
            dispatcher.drop(lease.key)
        else:
            reason = "it was ended by another manager"
            dispatcher.take_away(lease.key, CommandKind.ABANDON, reason)
        if pilot is not None:
            dispatcher.refresh(pilot)
            self._tell(pilot, due)

    async def _look(self) -> None:
        """Jobs may wait of which no news came."""
        dispatcher = self._dispatcher
        known = await dispatcher.store.classes()
        dispatcher.classes.update({klass.id: klass for klass in known})
        unheard = dispatcher.classes.keys() - dispatcher.matcher.classes()
        missed = unheard.difference(await self._store.dry(sorted(unheard)))
        if not missed:
            return
        waiting = await dispatcher.store.waiting()
        missed -= dispatcher.matcher.classes()
        for klass in missed:
            dispatcher.matcher.run_dry(klass)
        for item in waiting:
            if item.klass.id in missed:
                dispatcher.count(item, item.count)
        dispatcher.rematch()


def _row(room: Room, count: int) -> list[object]:
    return [
        count,
        room.cores,
        room.memory_mib,
        room.disk_mib,
        room.platform,
        sorted(room.cpu_flags),
    ]


def _room(
    count: int, cores: int, memory: int, disk: int, platform: str, flags: list[str]
) -> tuple[Room, int]:
    return Room(cores, memory, disk, 0, cores, memory, disk, platform, frozenset(flags)), count
