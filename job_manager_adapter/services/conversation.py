"""The conversation with pilots: what a frame means, and what the next one to them says."""

import logging
from collections.abc import Sequence
from functools import lru_cache

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import (
    CommandKind,
    Held,
    LinkRequest,
    PilotFrame,
    Progress,
)
from copilot_agent.protocol.job import JobSpec, Phase, Requirements
from job_manager_adapter.core.fleet import NOTHING, Pilot
from job_manager_adapter.core.leases import Key, Lease
from job_manager_adapter.services import frame_text as texts
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.drains import Draining
from job_manager_adapter.services.links import Links, required_outputs
from job_manager_adapter.services.outbox import MAX_OFFERS, LinksAnswer
from job_manager_adapter.services.receipts import put_due, read_due, tell_due
from job_manager_adapter.services.reports import Reports
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.fleet_records import PilotChange, PilotRow

log = logging.getLogger(__name__)
_UNDER_WAY = frozenset({Phase.RUNNING, Phase.STAGE_OUT, Phase.REPORTING})
_UNKNOWN_NEEDS = Requirements(memory_mib=16, disk_mib=1)
MAX_DOOMED = 2000
"""Attempts that a pilot is told to abandon at a time; what it holds beyond comes after these."""
MAX_LINKS_AT_ONCE = 16
"""Attempts whose links are made for one frame of a pilot."""
MAX_OFFER_BYTES = 600_000
"""Offers of one frame together, roughly; a frame has to stay below 1 MiB."""


class Conversation:
    def __init__(
        self, dispatcher: Dispatcher, reports: Reports, links: Links, draining: Draining
    ) -> None:
        self._dispatcher = dispatcher
        self._draining = draining
        self._reports = reports
        self._links = links

    # Sessions

    async def attach(
        self, row: PilotRow, carrier: str, experiments: frozenset[str] | None = None
    ) -> PilotSession:
        """The pilot is neither retired nor banned; None: it takes everybody's jobs."""
        dispatcher = self._dispatcher
        taken = await dispatcher.peers.took(row)
        dispatcher.remember(row)
        for lease in taken:  # at once: whatever fails from here on, somebody has to watch them
            dispatcher.restore(lease)
        receipts = await read_due(dispatcher.store, row.launcher_key)
        pilot = dispatcher.remember(row)  # again: one without leases may be forgotten meanwhile
        if receipts:
            put_due(dispatcher.outbox(pilot.id), receipts)
        pilot.session = max(pilot.session + 1, int(dispatcher.clock.time() * 1000))
        pilot.sequence, pilot.attached, pilot.wants = -1, True, NOTHING
        pilot.experiments = experiments
        if older := dispatcher.sessions.pop(pilot.id, None):
            older.close(ErrorCode.SESSION_SUPERSEDED)
        dispatcher.unsaid(pilot.id).repeat(dispatcher.clock.monotonic())
        session = PilotSession(self, pilot.id, pilot.session, carrier)
        dispatcher.sessions[pilot.id] = session
        dispatcher.events.emit("pilot", pilot.id, "attached", detail=carrier)
        return session

    def detached(self, session: PilotSession) -> None:
        if self._dispatcher.sessions.get(session.pilot) is not session:
            return
        del self._dispatcher.sessions[session.pilot]
        self._dispatcher.fleet.pilots[session.pilot].attached = False
        self._dispatcher.matcher.withdraw(session.pilot)

    # Manager → pilot

    def due(self, session: PilotSession) -> bool:
        known = session.policy is self._dispatcher.policy
        return not known or self._dispatcher.unsaid(session.pilot).due

    def frame(self, session: PilotSession) -> str:
        dispatcher = self._dispatcher
        outbox = dispatcher.unsaid(session.pilot)
        head = texts.head(session.number, session.acknowledges, dispatcher.clock.time())
        session.greet = False
        if session.policy is not dispatcher.policy:
            session.policy = dispatcher.policy
            head += f',"policy":{session.policy.model_dump_json()}'
        offers = self._offers(outbox.offers.peek(MAX_OFFERS))
        return outbox.take(head, offers, dispatcher.clock.monotonic())

    def _offers(self, leases: Sequence[Lease]) -> list[str]:
        offers: list[str] = []
        size, now = 0, self._dispatcher.clock.time()
        lease_seconds = self._dispatcher.config.policy.lease_seconds
        for lease in leases:
            if lease.spec is None:
                break
            spec = _files_of(lease.spec, lease.klass.experiment)
            inputs = self._links.inputs(lease.job, spec, now)
            outputs = self._links.outputs(lease.job, lease.attempt, spec, now)
            lease.required = required_outputs(spec)
            text = texts.offer(lease.job, lease.attempt, lease.spec, lease_seconds, inputs, outputs)
            size += len(text.encode())
            if offers and size > MAX_OFFER_BYTES:
                break
            offers.append(text)
        return offers

    # Pilot → manager

    def heard(self, session: PilotSession, frame: PilotFrame) -> None:
        dispatcher = self._dispatcher
        pilot = dispatcher.fleet.pilots[session.pilot]
        now = dispatcher.clock.monotonic()
        moved = bool(frame.reports or pilot.silent or now >= pilot.room_until)
        pilot.seen, pilot.seen_at, pilot.silent = now, dispatcher.clock.time(), False
        self._reflected(pilot, frame)
        self._reports.take(pilot, frame.reports)
        if frame.link_requests:
            dispatcher.spawn(self._fresh_links(pilot, frame.link_requests))
        if frame.sequence >= pilot.sequence:  # else what it says of the present is past
            moved |= self._present(pilot, session, frame, now)
        if moved:
            pilot.room_until = now + dispatcher.config.policy.heartbeat_seconds / 2
            dispatcher.refresh(pilot)
            dispatcher.rematch(pilot.id)

    def _present(self, pilot: Pilot, session: PilotSession, frame: PilotFrame, now: float) -> bool:
        """What the pilot is and has now. Whether that may change its room."""
        first, doomed = pilot.sequence < 0, bool(pilot.doomed)
        pilot.sequence = session.acknowledges = frame.sequence
        moved = self._pause(pilot, frame.paused)
        moved |= self._held(pilot, frame.holding, now)
        self._progress(pilot, frame.progress)
        if first:
            self._offer_again(pilot, frame.holding)
            self._draining.greet(pilot, frame.draining)
        outbox = self._dispatcher.unsaid(pilot.id)
        outbox.repeat(now - self._dispatcher.config.policy.heartbeat_seconds / 2)
        moved |= self._capabilities(pilot, frame)
        moved |= self._wishes(pilot, frame)
        pilot.departed = frame.leaving
        return moved or first or doomed or bool(pilot.doomed)

    def _wishes(self, pilot: Pilot, frame: PilotFrame) -> bool:
        same = (
            frame.wants.__dict__ == pilot.wants.__dict__
        )  # a model's own == takes ten times as long
        if same and frame.draining == pilot.leaving:
            return False
        pilot.wants, pilot.leaving = self._dispatcher.fleet.same(frame.wants), frame.draining
        return True

    def _reflected(self, pilot: Pilot, frame: PilotFrame) -> None:
        outbox = self._dispatcher.unsaid(pilot.id)
        outbox.reflect(frame.commands_done, frame.receipts_kept)
        if not frame.receipts_kept:
            return
        self._dispatcher.lazily.kept(pilot.launcher_key, frame.receipts_kept)
        if outbox.more_receipts and not outbox.receipts.things:
            self._dispatcher.lazily.flush()  # else the same are due once more
            self._dispatcher.spawn(tell_due(self._dispatcher, pilot))

    def _pause(self, pilot: Pilot, paused: bool) -> bool:
        if paused == pilot.paused:
            return False
        pilot.paused = paused
        now = self._dispatcher.clock.monotonic()
        for lease in pilot.leases.values():
            grace = self._dispatcher.grace(pilot, lease.pause_seconds)
            self._dispatcher.leases.renew(lease, now, now + grace)
        self._dispatcher.spawn(self._write_down(pilot))
        self._dispatcher.events.emit("pilot", pilot.id, "paused" if paused else "resumed")
        return True

    def _held(self, pilot: Pilot, holding: Sequence[Held], now: float) -> bool:
        """Renews what is named and ours; what is not is to be abandoned.

        Whether an attempt began or ceased to take room.
        """
        keys: set[Key] = set()
        moved = False
        offers = self._dispatcher.unsaid(pilot.id).offers
        for held in holding:
            key = (held.job, held.attempt)
            keys.add(key)
            lease = pilot.leases.get(key)
            if lease is None:
                self._not_leased(pilot, held)
                continue
            grace = self._dispatcher.grace(pilot, lease.pause_seconds)
            if not self._dispatcher.leases.renew(lease, now, now + grace):
                continue  # it ran out; the sweep takes it away
            moved |= (lease.phase is Phase.REPORTING) != (held.phase is Phase.REPORTING)
            lease.phase = held.phase
            offers.reflected(key)
            lease.spec = None
            if held.phase in _UNDER_WAY and not lease.started:
                self._started(lease)
        if pilot.doomed:
            self._gone(pilot, keys)
        return moved

    def _started(self, lease: Lease) -> None:
        lease.started, lease.began_at = True, self._dispatcher.clock.time()
        self._dispatcher.lazily.started(lease)
        experiment = lease.klass.experiment
        self._dispatcher.events.emit("job", lease.job, "running", experiment, lease.pilot)

    def _not_leased(self, pilot: Pilot, held: Held) -> None:
        """Its report may be on the way; anything else has no right to run."""
        key = (held.job, held.attempt)
        if held.phase is Phase.REPORTING or key in pilot.doomed:
            return
        if len(pilot.doomed) >= MAX_DOOMED:
            return
        reason = "this attempt is not leased to this pilot"
        self._dispatcher.doom(pilot, key, _UNKNOWN_NEEDS, CommandKind.ABANDON, reason)

    def _gone(self, pilot: Pilot, keys: set[Key]) -> None:
        """What is not held any more needs no command; one that was never said is said first."""
        commands = self._dispatcher.unsaid(pilot.id).commands
        for key in [key for key in pilot.doomed if key not in keys]:
            command = pilot.doomed[key].command
            if command in commands.said_at or command not in commands.things:
                commands.reflected(command)
                del pilot.doomed[key]

    def _progress(self, pilot: Pilot, news: Sequence[Progress]) -> None:
        for item in news:
            if lease := pilot.leases.get((item.job, item.attempt)):
                tail = lease.progress.log_tail if lease.progress else None
                if tail is not None and item.log_tail is None:
                    item = item.model_copy(update={"log_tail": tail})
                lease.progress = item

    def _capabilities(self, pilot: Pilot, frame: PilotFrame) -> bool:
        if frame.capabilities is None or frame.capabilities == pilot.capabilities:
            return False
        pilot.capabilities = frame.capabilities
        pilot.cpu_flags = self._dispatcher.fleet.intern(frame.capabilities.cpu_flags)
        self._dispatcher.spawn(self._write_down(pilot))
        return True

    async def _write_down(self, pilot: Pilot) -> None:
        change = PilotChange(
            pilot.id,
            capabilities=pilot.capabilities,
            paused=pilot.paused,
            seen_at=pilot.seen_at,
        )
        try:
            await self._dispatcher.store.change_pilots([change])
        except StoreError as error:
            log.warning("news of %s wait for the store: %s", pilot.id, error)
            pilot.unwritten = True  # housekeeping tries again

    # Offers and links that need the job's specification again

    def _offer_again(self, pilot: Pilot, holding: Sequence[Held]) -> None:
        """The pilot attached and does not hold these: the offer was lost, or its memory was."""
        keys = {(held.job, held.attempt) for held in holding}
        now = self._dispatcher.clock.monotonic()
        lost = [
            lease
            for lease in pilot.leases.values()
            if lease.key not in keys and not lease.ending and lease.deadline > now
        ]
        missing = [lease for lease in lost if lease.spec is None]
        for lease in lost:
            if lease.spec is not None:
                self._dispatcher.outbox(pilot.id).offers.put(lease.key, lease)
        if missing:
            self._dispatcher.spawn(self._offer_from_store(pilot, missing))

    async def _offer_from_store(self, pilot: Pilot, leases: Sequence[Lease]) -> None:
        specs = await self._dispatcher.store.specs([lease.job for lease in leases])
        for lease in leases:
            if pilot.leases.get(lease.key) is lease and lease.job in specs:
                lease.spec = specs[lease.job]
                self._dispatcher.outbox(pilot.id).offers.put(lease.key, lease)
        self._dispatcher.wake(pilot.id)

    async def _fresh_links(self, pilot: Pilot, requests: Sequence[LinkRequest]) -> None:
        """Of some; the pilot asks again for the others."""
        asked = dict.fromkeys((item.job, item.attempt) for item in requests)
        mine = [key for key in asked if key in pilot.leases][:MAX_LINKS_AT_ONCE]
        specs = await self._dispatcher.store.specs([job for job, _ in mine])
        size, now = 0, self._dispatcher.clock.time()
        for job, attempt in mine:
            if job not in specs:
                continue
            spec = JobSpec.model_validate_json(specs[job])
            inputs = self._links.inputs(job, spec, now)
            outputs = self._links.outputs(job, attempt, spec, now)
            text = texts.links(job, attempt, inputs, outputs)
            size += len(text)
            if len(text) < size > MAX_OFFER_BYTES:
                break
            answer = LinksAnswer((job, attempt), len(inputs) + len(outputs), text)
            self._dispatcher.outbox(pilot.id).add_links(answer)
        self._dispatcher.wake(pilot.id)


def _files_of(spec: bytes, experiment: str) -> JobSpec:
    """A stored specification, as far as links need it: one that names no files is like the next."""
    if any(name in spec for name in (b'"inputs":', b'"outputs":', b'"limits":')):
        return JobSpec.model_validate_json(spec)
    return _without_files(experiment)


@lru_cache(maxsize=1024)
def _without_files(experiment: str) -> JobSpec:
    return JobSpec(experiment=experiment, command=("-",))
