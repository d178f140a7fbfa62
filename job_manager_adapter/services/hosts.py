"""Use cases of hosts."""

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.services import takeback
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.drains import Draining
from job_manager_adapter.services.errors import NotFoundError
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.times import moment_or_none
from job_manager_adapter.store.fleet_records import HostRow, Retire
from job_manager_adapter.views import BanRequest, DrainRequest, HostView, Page, PilotState


class Hosts:
    def __init__(self, dispatcher: Dispatcher, draining: Draining) -> None:
        self._dispatcher = dispatcher
        self._draining = draining

    async def list(
        self, principal: Principal, cursor: str | None = None, limit: int = 100
    ) -> Page[HostView]:
        """Newest first."""
        principal.require_operator()
        rows = await self._dispatcher.store.hosts(before=cursor, limit=limit)
        more = rows[-1].id if len(rows) == limit else None
        return Page(items=tuple(self._view(row) for row in rows), next_cursor=more)

    async def get(self, principal: Principal, host: str) -> HostView:
        """Raises NotFoundError."""
        principal.require_operator()
        row = await self._dispatcher.store.host(host)
        if row is None:
            raise NotFoundError(f"no host {host}", remedy="see `copilot host list`")
        return self._view(row)

    async def ban(self, principal: Principal, host: str, request: BanRequest) -> HostView:
        """Bans (retires its pilots, releases their leases uncharged) or takes the ban back."""
        principal.require_operator()
        dispatcher = self._dispatcher
        if not await dispatcher.store.ban(host, request.reason, not request.undo):
            raise NotFoundError(f"no host {host}", remedy="see `copilot host list`")
        if not request.undo:
            await self._retire_pilots(host)
        state = "unbanned" if request.undo else "banned"
        dispatcher.events.emit("host", host, state, detail=request.reason)
        return await self.get(principal, host)

    async def drain(self, principal: Principal, host: str, request: DrainRequest) -> HostView:
        """Its pilots of now and of later, until it is taken back. Raises NotFoundError."""
        await self.get(principal, host)
        await self._draining.order(host, request)
        self._dispatcher.events.emit("host", host, "undrained" if request.undo else "draining")
        return await self.get(principal, host)

    async def _retire_pilots(self, host: str) -> None:
        dispatcher = self._dispatcher
        rows = await dispatcher.store.pilots(host=host, retired=False, limit=1000)
        pilots = tuple(row.id for row in rows)
        order = Retire(
            pilots, FailureClass.PREEMPTED, "its host was banned", dispatcher.clock.time()
        )
        (released,) = await dispatcher.store.retire([order])
        takeback.dismiss(dispatcher, pilots, ErrorCode.HOST_BANNED, released)

    def _view(self, row: HostRow) -> HostView:
        dispatcher = self._dispatcher
        now, lease_seconds = dispatcher.clock.monotonic(), dispatcher.config.policy.lease_seconds
        gone = (PilotState.LOST, PilotState.RETIRED)
        alive = sum(
            pilot.host == row.id and pilot.state(now, lease_seconds) not in gone
            for pilot in dispatcher.fleet.pilots.values()
        )
        drain = dispatcher.drains.of("", row.id)
        return HostView(
            id=row.id,
            launcher_key=row.launcher_key,
            enrolment=row.enrolment,
            label=row.label,
            draining=drain is not None,
            drain_deadline=moment_or_none(drain.until) if drain else None,
            banned=row.banned,
            ban_reason=row.ban_reason,
            boots=row.boots,
            pilots_alive=alive,
            jobs_succeeded=row.jobs_succeeded,
            credit_granted=row.granted,
            seen_at=moment_or_none(row.seen_at),
        )
