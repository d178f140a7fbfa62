"""The route table as aiohttp routes."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from job_manager_adapter.api import about, credit, events, files, fleet, jobs
from job_manager_adapter.api.auth import authorize
from job_manager_adapter.api.body import read_model
from job_manager_adapter.api.openapi import openapi
from job_manager_adapter.api.route import (
    PUBLIC,
    Call,
    Doors,
    Reply,
    Result,
    Route,
    path_values,
    query_values,
)
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import Role, SubmitRequest

API_ROUTES: tuple[Route, ...] = (
    *about.ROUTES,
    *jobs.ROUTES,
    *fleet.ROUTES,
    *files.ROUTES,
    *credit.ROUTES,
    *events.ROUTES,
)
_NOBODY = Principal(token="", role=Role.EXPERIMENT, experiment="")
_SMALL_BODY = 64 * 1024
_NOTHING: Mapping[str, str] = MappingProxyType({})


def add_api(application: web.Application, doors: Doors) -> None:
    """Serves `/api` from `application`."""
    document = openapi(API_ROUTES, doors.version)
    for route in (*API_ROUTES, about.openapi_route(document)):
        application.router.add_route(route.method, route.path, _handler(route, doors))

    async def end_streams(_: web.Application) -> None:
        for task in list(doors.streams):
            task.cancel()

    application.on_shutdown.append(end_streams)


def _handler(route: Route, doors: Doors) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        principal = _NOBODY
        if route.roles != PUBLIC:
            principal = await authorize(request, route, doors.services.tokens)
        call: Call[Any, Any] = Call(
            request=request,
            doors=doors,
            principal=principal,
            path=path_values(request) if request.match_info else _NOTHING,
            query=query_values(request, route.query) if route.query else None,
            body=await read_model(request, route.body, _most(route, doors)) if route.body else None,
        )
        return _response(route, await route.handler(call))

    return serve


def _most(route: Route, doors: Doors) -> int:
    """Only submissions are large; what is wrong with a body costs by its size."""
    return doors.max_body if route.body is SubmitRequest else min(doors.max_body, _SMALL_BODY)


def _response(route: Route, result: Result) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    reply = result if isinstance(result, Reply) else Reply(result, route.status)
    body = reply.body.model_dump_json().encode()
    return web.Response(status=reply.status, body=body, content_type="application/json")
