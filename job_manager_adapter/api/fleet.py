"""Routes of pilots and hosts, for operators."""

from typing import Annotated

from pydantic import Field, StringConstraints

from copilot_agent.protocol.base import Strict
from copilot_agent.protocol.ids import HostId
from job_manager_adapter.api.route import OPERATOR, Call, Result, Route
from job_manager_adapter.views import (
    BanRequest,
    DrainRequest,
    FleetView,
    HostView,
    Page,
    PilotState,
    PilotView,
)


class PageQuery(Strict):
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class PilotsQuery(PageQuery):
    state: PilotState | None = None
    host: HostId | None = None


async def pilots(call: Call[None, PilotsQuery]) -> Result:
    query = call.query
    return await call.services.pilots.list(
        call.principal, query.state, query.host, query.cursor, query.limit
    )


async def pilot(call: Call[None, None]) -> Result:
    return await call.services.pilots.get(call.principal, call.path["pilot"])


async def drain(call: Call[DrainRequest, None]) -> Result:
    return await call.services.pilots.drain(call.principal, call.path["pilot"], call.body)


async def retire(call: Call[None, None]) -> Result:
    return await call.services.pilots.retire(call.principal, call.path["pilot"])


async def hosts(call: Call[None, PageQuery]) -> Result:
    return await call.services.hosts.list(call.principal, call.query.cursor, call.query.limit)


async def host(call: Call[None, None]) -> Result:
    return await call.services.hosts.get(call.principal, call.path["host"])


async def drain_host(call: Call[DrainRequest, None]) -> Result:
    return await call.services.hosts.drain(call.principal, call.path["host"], call.body)


async def fleet(call: Call[None, None]) -> Result:
    return await call.services.draining.fleet(call.principal)


async def drain_fleet(call: Call[DrainRequest, None]) -> Result:
    return await call.services.draining.drain_fleet(call.principal, call.body)


async def ban(call: Call[BanRequest, None]) -> Result:
    return await call.services.hosts.ban(call.principal, call.path["host"], call.body)


ROUTES = (
    Route(
        "GET", "/api/v1/pilots", pilots, "List pilots", OPERATOR,
        query=PilotsQuery, reply=Page[PilotView],
    ),
    Route("GET", "/api/v1/pilots/{pilot}", pilot, "Show one pilot", OPERATOR, reply=PilotView),
    Route(
        "POST", "/api/v1/pilots/{pilot}/drain", drain, "Let a pilot finish and take no more",
        OPERATOR, body=DrainRequest, reply=PilotView,
    ),
    Route(
        "POST", "/api/v1/pilots/{pilot}/retire", retire, "Send a pilot away", OPERATOR,
        reply=PilotView,
    ),
    Route(
        "GET", "/api/v1/hosts", hosts, "List hosts", OPERATOR,
        query=PageQuery, reply=Page[HostView],
    ),
    Route("GET", "/api/v1/hosts/{host}", host, "Show one host", OPERATOR, reply=HostView),
    Route(
        "POST", "/api/v1/hosts/{host}/drain", drain_host, "Let a host finish and take no more",
        OPERATOR, body=DrainRequest, reply=HostView,
    ),
    Route(
        "GET", "/api/v1/fleet", fleet, "Pilots by state, and how far drains have come", OPERATOR,
        reply=FleetView,
    ),
    Route(
        "POST", "/api/v1/fleet/drain", drain_fleet, "Let all pilots finish and take no more",
        OPERATOR, body=DrainRequest, reply=FleetView,
    ),
    Route(
        "POST", "/api/v1/hosts/{host}/ban", ban, "Ban a host, or take the ban back", OPERATOR,
        body=BanRequest, reply=HostView,
    ),
)  # fmt: skip
