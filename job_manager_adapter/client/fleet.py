"""Pilots, hosts and credit, as an operator sees them."""

from collections.abc import AsyncIterator
from datetime import datetime

from copilot_agent.protocol.ids import HostId, PilotId
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.client.http import Http
from job_manager_adapter.views import (
    BanRequest,
    CreditView,
    DrainRequest,
    EnrolmentCreditView,
    FleetView,
    HostView,
    Page,
    PilotView,
)


class Pilots:
    """`client.pilots`; needs an operator's token."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(
        self,
        *,
        state: str | None = None,
        host: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[PilotView]:
        return await self._http.get(
            "api/v1/pilots", Page[PilotView], state=state, host=host, cursor=cursor, limit=limit
        )

    async def show(self, pilot: PilotId) -> PilotView:
        return await self._http.get(f"api/v1/pilots/{pilot}", PilotView)

    async def drain(
        self, pilot: PilotId, *, deadline_seconds: float | None = None, undo: bool = False
    ) -> PilotView:
        """Let the pilot finish what runs, for at most `deadline_seconds`."""
        request = DrainRequest(deadline_seconds=deadline_seconds, undo=undo)
        return await self._http.post(
            f"api/v1/pilots/{pilot}/drain", request, PilotView, repeat=True
        )

    async def retire(self, pilot: PilotId) -> None:
        await self._http.post_empty(f"api/v1/pilots/{pilot}/retire")


class Hosts:
    """`client.hosts`; needs an operator's token."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def list(self, *, cursor: str | None = None, limit: int = 100) -> Page[HostView]:
        return await self._http.get("api/v1/hosts", Page[HostView], cursor=cursor, limit=limit)

    async def drain(
        self, host: HostId, *, deadline_seconds: float | None = None, undo: bool = False
    ) -> HostView:
        """Let all its pilots finish what runs, for at most `deadline_seconds`."""
        request = DrainRequest(deadline_seconds=deadline_seconds, undo=undo)
        return await self._http.post(f"api/v1/hosts/{host}/drain", request, HostView, repeat=True)

    async def ban(self, host: HostId, *, reason: str = "", undo: bool = False) -> None:
        await self._http.post_empty(
            f"api/v1/hosts/{host}/ban", BanRequest(reason=reason, undo=undo)
        )


class Fleet:
    """`client.fleet`; needs an operator's token."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def show(self) -> FleetView:
        return await self._http.get("api/v1/fleet", FleetView)

    async def drain(
        self, *, deadline_seconds: float | None = None, undo: bool = False
    ) -> FleetView:
        """Let all pilots finish what runs, for at most `deadline_seconds`."""
        request = DrainRequest(deadline_seconds=deadline_seconds, undo=undo)
        return await self._http.post("api/v1/fleet/drain", request, FleetView, repeat=True)


class Credit:
    """`client.credit`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def total(self) -> CreditView:
        return await self._http.get("api/v1/credit", CreditView)

    async def by_enrolment(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[EnrolmentCreditView]:
        """In the order of enrolments; the times must have a time zone."""
        times = {
            "since": since.isoformat() if since else None,
            "until": until.isoformat() if until else None,
        }
        cursor = None
        while True:
            page = await self._http.get(
                "api/v1/credit/enrolments",
                Page[EnrolmentCreditView],
                cursor=cursor,
                limit=500,
                **times,
            )
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def receipts(self, *, cursor: str | None = None, limit: int = 500) -> Page[Receipt]:
        return await self._http.get("api/v1/receipts", Page[Receipt], cursor=cursor, limit=limit)
