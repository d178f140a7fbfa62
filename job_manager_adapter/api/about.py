"""Who am I, and what is there."""

from aiohttp import web

from job_manager_adapter.api.route import ALL_ROLES, PUBLIC, Call, Result, Route
from job_manager_adapter.views import WhoAmI


async def whoami(call: Call[None, None]) -> Result:
    own = call.principal.experiment
    return WhoAmI(
        role=call.principal.role,
        experiment=own,
        experiments=(own,) if own else call.doors.experiments,
        manager_version=call.doors.version,
        manager_key=call.doors.manager_key,
    )


def openapi_route(document: bytes) -> Route:
    """The route that serves the API's description."""

    async def openapi(_: Call[None, None]) -> web.StreamResponse:
        return web.Response(body=document, content_type="application/json")

    return Route("GET", "/api/openapi.json", openapi, "This description", PUBLIC)


ROUTES = (Route("GET", "/api/v1/whoami", whoami, "Who the token is", ALL_ROLES, reply=WhoAmI),)
