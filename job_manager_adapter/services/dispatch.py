"""The manager's memory while it runs: who waits, who has room, who holds which lease.

The database is the truth. Everything here is read from it at the start and follows its commits: a
lease is here after its claim is committed, and gone after its end is committed.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from copilot_agent.protocol.frames import Command, CommandKind, Policy
from copilot_agent.protocol.ids import id_time
from copilot_agent.protocol.job import FailureClass, Requirements
from job_manager_adapter.core.clockwork import Clockwork
from job_manager_adapter.core.drains import Drains
from job_manager_adapter.core.fleet import Doomed, Fleet, Pilot
from job_manager_adapter.core.leases import Key, Lease, Leases
from job_manager_adapter.core.matching import Kind, Matcher, Pick, RequirementClass
from job_manager_adapter.services.context import Clock, Config, Ids
from job_manager_adapter.services.events import Events
from job_manager_adapter.services.lazily import Lazily
from job_manager_adapter.services.outbox import Outbox
from job_manager_adapter.services.peers import Alone
from job_manager_adapter.services.resting import Rest, Resting
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.services.tasks import Tasks
from job_manager_adapter.services.timings import Timings
from job_manager_adapter.store.base import Store, StoreError
from job_manager_adapter.store.fleet_records import PilotRow
from job_manager_adapter.store.records import Claim, Claimed, OpenLease, Release, Released, Waiting

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
"""After the store has failed; what was not done is done again."""
SETTLE_SECONDS = 10.0
"""What a clean stop waits for operations under way."""
_EMPTY = Outbox()
SHORTFALL_SECONDS = 0.05
"""Pause before the next wish when the counters promised more than there was."""


class Dispatcher:
    def __init__(
        self, store: Store, clock: Clock, ids: Ids, config: Config, events: Events
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self.config = config
        self.events = events
        self.tasks = Tasks()
        self.spawn = self.tasks.spawn
        self.fleet = Fleet()
        self.clockwork = Clockwork(config.policy)
        self.drains = Drains()
        self.leases = Leases()
        self.matcher = Matcher()
        self.lazily = Lazily(store, self.leases, self.spawn)
        self.resting = Resting(config.retry_seconds, self._rested)
        self.outboxes: dict[str, Outbox] = {}
        self.sessions: dict[str, PilotSession] = {}
        self.timings = Timings()
        self.tallies: Counter[str] = Counter()
        """Since the start: pilots_registered, pilots_lost, leases_expired."""
        self.ended: Counter[str] = Counter()
        """Attempts by outcome since the start."""
        self.failed: Counter[FailureClass] = Counter()
        """Those that did not succeed, by why."""
        self.miscounted = False
        """A claim got less than the counters promised; housekeeping reads them anew."""
        self.classes: dict[int, RequirementClass] = {}
        self.peers = Alone()
        self._begun: Counter[int] = Counter()
        """How often jobs of a class began to wait."""
        self._claiming = 0
        self._stillborn: set[Key] = set()
        """Attempts that ended before the answer to their claim was dealt with."""

    # Start and end

    async def start(self) -> None:
        """Every open lease gets a fresh grace; a paused pilot's what is left of the pause limit."""
        self.classes = {klass.id: klass for klass in await self.store.classes()}
        self.matcher.replace(
            (item.klass, item.priority, item.count, item.head)
            for item in await self.store.waiting()
        )
        for row in await self.store.holders():
            self.remember(row)
        for item in await self.store.open_leases():
            self.restore(item)

    def restore(self, item: OpenLease) -> Lease | None:
        """A lease from the database, with a fresh grace; None if it is known."""
        if self.leases.get((item.job, item.attempt)):
            return None
        now, wall = self.clock.monotonic(), self.clock.time()
        pilot = self.fleet.get(item.pilot)
        grace = self.config.policy.lease_seconds
        if pilot is not None and pilot.paused:
            paused_for = max(wall - (pilot.seen_at or wall), 0.0)
            grace = max(grace, item.pause_seconds - paused_for)
        lease = Lease(
            job=item.job,
            attempt=item.attempt,
            pilot=item.pilot,
            klass=self.classes[item.klass],
            priority=item.priority,
            since=now - max(wall - item.leased_at, 0.0),
            leased_at=item.leased_at,
            deadline=now + grace,
            pause_seconds=item.pause_seconds,
            reference_cpu_seconds=item.reference_cpu_seconds,
            started=item.running,
        )
        self.leases.add(lease)
        if pilot is not None:
            pilot.leases[lease.key] = lease
        return lease

    async def settle(self) -> None:
        """Waits for what is under way."""
        while not (self.quiet and self.lazily.idle):
            self.lazily.flush()
            await self.tasks.join()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.settle()
        except TimeoutError:
            log.warning("stopping although the store has not answered")
        self.resting.close()
        for session in list(self.sessions.values()):
            session.close(None)

    @property
    def quiet(self) -> bool:
        """Nothing is under way, so the counters must agree with the database."""
        return not self.tasks

    # Pilots

    def remember(self, row: PilotRow) -> Pilot:
        pilot = self.fleet.add(row.id, row.host, row.enrolment, row.launcher_key, row.capabilities)
        self.clockwork.resize(len(self.fleet.pilots))
        pilot.paused, pilot.retired, pilot.elsewhere = row.paused, row.retired, False
        pilot.draining = self.drains.of(row.id, row.host) is not None
        pilot.seen_at = pilot.seen_at or row.seen_at
        return pilot

    @property
    def policy(self) -> Policy:
        """What pilots are told now."""
        return self.clockwork.policy

    def outbox(self, pilot: str) -> Outbox:
        """To put something into."""
        outbox = self.outboxes.get(pilot)
        if outbox is None:
            outbox = self.outboxes[pilot] = Outbox()
        return outbox

    def unsaid(self, pilot: str) -> Outbox:
        """To look into, and to take out of; most pilots of a large fleet have none."""
        return self.outboxes.get(pilot, _EMPTY)

    def tidy(self, pilot: str) -> None:
        """Keeps no empty outbox."""
        if (outbox := self.outboxes.get(pilot)) and outbox.empty:
            del self.outboxes[pilot]

    def wake(self, pilot: str) -> None:
        session = self.sessions.get(pilot)
        if session is not None:
            session.wake()

    def command(self, pilot: str, kind: CommandKind, reason: str = "", **more: object) -> str:
        command = Command(id=self.ids.make("c"), kind=kind, reason=reason, **more)
        self.outbox(pilot).commands.put(command.id, command)
        self.wake(pilot)
        return command.id

    # Leases

    def drop(self, key: Key) -> Lease | None:
        """The attempt has ended in the database."""
        lease = self.leases.drop(key)
        if lease is None and self._claiming:
            self._stillborn.add(key)
        if lease is not None and (pilot := self.fleet.get(lease.pilot)):
            pilot.leases.pop(key, None)
            self.unsaid(pilot.id).offers.reflected(key)
        return lease

    def take_away(self, key: Key, kind: CommandKind, reason: str) -> None:
        """The attempt has ended without its pilot, which may hold it still."""
        lease = self.drop(key)
        pilot = self.fleet.get(lease.pilot) if lease else None
        if lease is None or pilot is None or pilot.retired:
            return
        self.doom(pilot, key, lease.klass.requirements, kind, reason)
        self.refresh(pilot)

    def doom(
        self, pilot: Pilot, key: Key, needs: Requirements, kind: CommandKind, reason: str
    ) -> None:
        """The pilot holds, or may hold, what is not its own."""
        command = self.command(pilot.id, kind, reason, job=key[0], attempt=key[1])
        pilot.doomed[key] = Doomed(needs, command)

    def released(self, item: Released, failure_class: FailureClass) -> None:
        """A release was committed."""
        if item.state is None:
            return
        lease = self.leases.get((item.job, item.attempt))
        self.take_away((item.job, item.attempt), CommandKind.ABANDON, failure_class.value)
        self.ended["lost"] += 1
        self.failed[failure_class] += 1
        experiment = lease.klass.experiment if lease else None
        self.events.emit("job", item.job, item.state.value, experiment, failure_class.value)
        self.requeued(item.requeued, item.job, item.pilot, item.failures)

    def requeued(
        self, item: Waiting | None, job: str = "", pilot: str = "", failures: int = 0
    ) -> None:
        """The job waits again; not before a rest if its attempt on that pilot has failed."""
        if item is not None and not self.resting.add(job, item, pilot, failures):
            self.count(item, item.count)

    def _rested(self, rest: Rest) -> None:
        self.count(rest.waiting, rest.waiting.count)
        if (room := self.matcher.room(rest.pilot)) is not None:
            self.matcher.offer_room(rest.pilot, room)  # others come first
        self.rematch()

    def ceased_to_wait(self, job: str, item: Waiting) -> None:
        if not self.resting.drop(job):
            self.count(item, -item.count)

    def count(self, item: Waiting, count: int) -> None:
        """Jobs began (or with a negative count ceased) to wait."""
        self.classes.setdefault(item.klass.id, item.klass)
        self._begun[item.klass.id] += count > 0
        self.matcher.add(item.klass, item.priority, count, item.head)

    def waiting(self) -> Counter[str]:
        """Jobs that wait or rest, by experiment."""
        resting = Counter(rest.waiting.klass.experiment for rest in self.resting)
        return resting + Counter(self.matcher.waiting())

    def recount(self, waiting: Iterable[Waiting]) -> None:
        """The counters as the database has them, while nothing is under way."""
        self.matcher.replace((item.klass, item.priority, item.count, item.head) for item in waiting)
        for rest in self.resting:
            self.count(rest.waiting, -rest.waiting.count)
        self.rematch()

    # Matching and claims

    def refresh(self, pilot: Pilot) -> None:
        """Its room has changed."""
        if pilot.takes_jobs:
            self.matcher.offer_room(pilot.id, pilot.room())
        else:
            self.matcher.withdraw(pilot.id)

    def rematch(self, pilot: str | None = None) -> None:
        """Picks jobs for one pilot or for all; what is picked in one turn is one claim."""
        begun = time.perf_counter()
        picks = self.matcher.match(pilot)
        if not picks:
            return
        self.timings.match.observe(time.perf_counter() - begun)
        for pick in picks:
            self.fleet.pilots[pick.pilot].reserve(pick.klass)
            self.tasks.gather(self._claim, pick)

    def claim_ahead(self, kinds: Counter[Kind]) -> bool:
        """Idle pilots claim jobs that the caller stores in this turn: in the same transaction."""
        picks = self.matcher.reserve(kinds)
        for pick in picks:
            self.fleet.pilots[pick.pilot].reserve(pick.klass)
        if picks:
            self.spawn(self._claim(picks))
        return bool(picks)

    async def _claim(self, picks: list[Pick]) -> None:
        wanted = Counter((pick.pilot, pick.klass.id) for pick in picks)
        at = self.clock.time()
        resting = {
            klass: self.resting.of_class(klass) for klass in {pick.klass.id for pick in picks}
        }
        claims = [
            Claim(pilot, klass, count, at, resting[klass])
            for (pilot, klass), count in wanted.items()
        ]
        begun = {claim.klass: self._begun[claim.klass] for claim in claims}
        self._claiming += 1
        try:
            results: Sequence[Sequence[Claimed]] = await self.store.claim(claims)
        except StoreError as error:
            log.warning("claims failed, trying again: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            results = [[] for _ in claims]
            begun.clear()  # nothing was learnt
        self._settle(picks, results)
        for claim, claimed in zip(claims, results, strict=True):
            for got in claimed:
                self._leased(claim.pilot, got)
        self._claiming -= 1
        if not self._claiming:
            self._stillborn.clear()
        for claim, claimed in zip(claims, results, strict=True):
            if len(claimed) < claim.count:  # else its room is as it was reckoned
                self.refresh(self.fleet.pilots[claim.pilot])
            self.wake(claim.pilot)
        if sum(map(len, results)) < len(picks):  # somebody cancelled meanwhile, or more
            self.miscounted = True
            self._run_dry(claims, results, begun)
            asyncio.get_running_loop().call_later(SHORTFALL_SECONDS, self.rematch)

    def _run_dry(
        self,
        claims: Sequence[Claim],
        results: Sequence[Sequence[Claimed]],
        begun: Mapping[int, int],
    ) -> None:
        """A claim that got less than it asked for left nothing of its class, at that moment."""
        for claim, claimed in zip(claims, results, strict=True):
            if len(claimed) < claim.count and self._begun[claim.klass] == begun.get(claim.klass):
                self.matcher.run_dry(claim.klass)

    def _settle(self, picks: Iterable[Pick], results: Sequence[Sequence[Claimed]]) -> None:
        """The wishes are over; what was not claimed after all waits on."""
        left: Counter[tuple[int, int]] = Counter()
        for pick in picks:
            pilot = self.fleet.pilots[pick.pilot]
            pilot.reserved[pick.klass.id] -= 1
            if not pilot.reserved[pick.klass.id]:
                del pilot.reserved[pick.klass.id]
            left[pick.klass.id, pick.priority] += 1
        left.subtract((got.klass, got.priority) for claimed in results for got in claimed)
        for (number, priority), count in left.items():
            if count:
                self.matcher.give_back(self.classes[number], priority, count)

    def _leased(self, name: str, got: Claimed) -> None:
        pilot = self.fleet.pilots[name]
        klass = self.classes[got.klass]
        self.matcher.learn(klass, got.priority, got.sequence + 1)
        if got.attempt == 1:
            self.timings.wait.observe(max(got.at - id_time(got.job), 0.0))
        if pilot.elsewhere or (got.job, got.attempt) in self._stillborn:
            self.refresh(pilot)
            return
        now = self.clock.monotonic()
        lease = Lease(
            job=got.job,
            attempt=got.attempt,
            pilot=name,
            klass=klass,
            priority=got.priority,
            since=now,
            leased_at=got.at,
            deadline=now + self.grace(pilot, got.pause_seconds),
            pause_seconds=got.pause_seconds,
            reference_cpu_seconds=got.reference_cpu_seconds,
            spec=got.spec,
        )
        self.leases.add(lease)
        pilot.leases[lease.key] = lease
        self.events.emit("job", got.job, "leased", klass.experiment, name)
        if pilot.retired:
            self.spawn(self._give_back(lease))
        else:
            self.outbox(name).offers.put(lease.key, lease)

    async def _give_back(self, lease: Lease) -> None:
        """Its pilot was retired while the claim was under way."""
        release = Release(
            lease.job,
            lease.attempt,
            FailureClass.PREEMPTED,
            "its pilot was retired",
            self.clock.time(),
        )
        for result in await self.store.release([release]):
            self.released(result, FailureClass.PREEMPTED)
        self.rematch()

    def grace(self, pilot: Pilot, pause_seconds: float) -> float:
        """How long a lease lives without word."""
        lease_seconds = self.config.policy.lease_seconds
        return max(lease_seconds, pause_seconds) if pilot.paused else lease_seconds
