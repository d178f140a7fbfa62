"""Drains: who is asked to take no more jobs, told, and held to the deadline."""

from collections.abc import Iterator

from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import FailureClass, Phase
from job_manager_adapter.core.drains import FLEET, Drain
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.services import takeback
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.times import moment, moment_or_none
from job_manager_adapter.store.fleet_records import DrainRow
from job_manager_adapter.store.records import Release
from job_manager_adapter.views import DrainRequest, DrainView, FleetView, PilotState

_NEARLY_DONE = frozenset({Phase.STAGE_OUT, Phase.REPORTING})


class Draining:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._orders = 0
        """How many were given or taken back here; what was read meanwhile is old."""

    # Orders

    async def order(self, scope: str, request: DrainRequest) -> None:
        """Committed first, then told to whom it covers."""
        dispatcher = self._dispatcher
        self._orders += 1
        if request.undo:
            await dispatcher.store.undrain([scope])
            dispatcher.drains.remove(scope)
        else:
            at, seconds = dispatcher.clock.time(), request.deadline_seconds
            row = DrainRow(scope, at, None if seconds is None else at + seconds)
            await dispatcher.store.drain([row])
            dispatcher.drains.put(self._drain(row))
        self._orders += 1
        for pilot in list(dispatcher.fleet.pilots.values()):
            if not pilot.retired and scope in (FLEET, pilot.host, pilot.id):
                self._apply(pilot)
        dispatcher.rematch()

    async def drain_fleet(self, principal: Principal, request: DrainRequest) -> FleetView:
        """Also pilots that come later, until it is taken back."""
        principal.require_operator()
        await self.order(FLEET, request)
        state = "undrained" if request.undo else "draining"
        self._dispatcher.events.emit("fleet", FLEET, state)
        return await self.fleet(principal)

    async def refresh(self) -> None:
        """Reads what is asked for; another manager on the same store may have changed it."""
        orders, dispatcher = self._orders, self._dispatcher
        rows = await dispatcher.store.drains()
        if orders != self._orders:
            return
        before = {drain.scope: drain for drain in dispatcher.drains}
        dispatcher.drains.replace(map(self._drain, rows))
        after = {drain.scope: drain for drain in dispatcher.drains}
        if before == after:
            return
        for pilot in list(dispatcher.fleet.pilots.values()):
            pilots_own = (pilot.id, pilot.host, FLEET)
            if any(before.get(scope) != after.get(scope) for scope in pilots_own):
                self._apply(pilot)
        dispatcher.rematch()

    def _drain(self, row: DrainRow) -> Drain:
        clock = self._dispatcher.clock
        left = None if row.until is None else row.until - clock.time()
        deadline = None if left is None else clock.monotonic() + left
        return Drain(row.scope, row.at, row.until, deadline)

    # Pilots

    def _apply(self, pilot: Pilot) -> None:
        dispatcher = self._dispatcher
        drain = dispatcher.drains.of(pilot.id, pilot.host)
        if drain is None and not pilot.draining:
            return
        pilot.draining = drain is not None
        dispatcher.refresh(pilot)
        self._tell(pilot, drain)

    def _tell(self, pilot: Pilot, drain: Drain | None) -> None:
        """In place of what was said of it before."""
        dispatcher = self._dispatcher
        dispatcher.unsaid(pilot.id).commands.reflected(pilot.drain_command)
        kind = CommandKind.UNDRAIN if drain is None else CommandKind.DRAIN
        seconds = drain.seconds_left(dispatcher.clock.monotonic()) if drain else None
        pilot.drain_command = dispatcher.command(
            pilot.id, kind, "asked by an operator", deadline_seconds=seconds
        )

    def greet(self, pilot: Pilot, says_so: bool) -> None:
        """It has attached; what it was told before may be old, or lost with the manager's memory.

        `says_so`: it drains, as it says; perhaps because it was told to, and has missed the end.
        """
        drain = self._dispatcher.drains.of(pilot.id, pilot.host)
        if drain is not None or says_so or pilot.draining:
            pilot.draining = drain is not None
            self._tell(pilot, drain)

    # The deadline

    async def enforce(self) -> None:
        """Takes back what a pilot still holds one heartbeat after its drain's deadline.

        A pilot that hears gives it back itself; what is only moved out or reported still may end.
        """
        dispatcher = self._dispatcher
        if not dispatcher.drains:
            return
        late = list(self._late())
        at = dispatcher.clock.time()
        await takeback.take_back(
            dispatcher,
            [
                Release(
                    lease.job,
                    lease.attempt,
                    FailureClass.PREEMPTED,
                    "its pilot was drained, and the deadline came",
                    at,
                )
                for lease in late
            ],
        )

    def _late(self) -> Iterator[Lease]:
        dispatcher = self._dispatcher
        patient_until = dispatcher.clock.monotonic() - dispatcher.config.policy.heartbeat_seconds
        for pilot in dispatcher.fleet.pilots.values():
            if not (pilot.draining and pilot.leases):
                continue
            drain = dispatcher.drains.of(pilot.id, pilot.host)
            if drain is not None and drain.overdue(patient_until):
                for lease in pilot.leases.values():
                    if not lease.ending and lease.phase not in _NEARLY_DONE:
                        yield lease

    # What operators see

    async def fleet(self, principal: Principal) -> FleetView:
        """Pilots by state, and how far each drain has come."""
        principal.require_operator()
        dispatcher = self._dispatcher
        now, lease_seconds = dispatcher.clock.monotonic(), dispatcher.config.policy.lease_seconds
        states = dispatcher.fleet.states(now, lease_seconds)
        return FleetView(
            pilots={
                state: states[state] for state in PilotState if state is not PilotState.RETIRED
            },
            jobs_held=len(dispatcher.leases),
            drains=tuple(map(self._view, dispatcher.drains)),
        )

    def _view(self, drain: Drain) -> DrainView:
        holding = [
            len(pilot.leases)
            for pilot in self._dispatcher.fleet.pilots.values()
            if pilot.leases and drain.covers(pilot.id, pilot.host)
        ]
        return DrainView(
            of=drain.kind,
            id="" if drain.scope == FLEET else drain.scope,
            since=moment(drain.at),
            deadline=moment_or_none(drain.until),
            pilots_holding=len(holding),
            jobs_held=sum(holding),
        )
