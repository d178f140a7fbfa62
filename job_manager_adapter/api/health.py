"""Is it alive, is it ready, what does it measure: without `/api` and without JSON."""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from job_manager_adapter.api.auth import authorize
from job_manager_adapter.api.route import OPERATOR, Call, Route
from job_manager_adapter.services.tokens import Tokens


@dataclass(frozen=True)
class Health:
    """What the routes ask. `problems` is empty when the manager is ready."""

    problems: Callable[[], Awaitable[Sequence[str]]]
    metrics: Callable[[], Awaitable[bytes]]
    metrics_type: str
    behind_proxy: bool = False


def add_health(application: web.Application, health: Health, tokens: Tokens) -> None:
    """Serves `/livez`, `/readyz` and `/metrics`."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        problems = await health.problems()
        if problems:
            return web.Response(status=503, text="\n".join(problems) + "\n")
        return web.Response(text="ready\n")

    async def metrics(request: web.Request) -> web.Response:
        if health.behind_proxy or not _from_here(request):
            await authorize(request, _METRICS, tokens)
        body = await health.metrics()
        return web.Response(body=body, headers={"Content-Type": health.metrics_type})

    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)


def _from_here(request: web.Request) -> bool:
    return bool(request.remote) and ipaddress.ip_address(request.remote or "").is_loopback


async def _not_called(_: Call[None, None]) -> web.StreamResponse:
    raise AssertionError


_METRICS = Route("GET", "/metrics", _not_called, "Metrics", OPERATOR)
