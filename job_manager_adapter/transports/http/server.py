"""The listening server: guarded connections, security headers, a clean stop."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from job_manager_adapter.api.problems import problems
from job_manager_adapter.transports.http.door import PilotDoor
from job_manager_adapter.transports.http.enrol import EnrolRoutes
from job_manager_adapter.transports.http.files import FileRoutes
from job_manager_adapter.transports.http.guard import ConnectionGuard
from job_manager_adapter.transports.http.poll import PollRoute
from job_manager_adapter.transports.http.socket import GOING_AWAY, SocketRoute

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
STOP_SECONDS = 2.0


def add_pilot_routes(application: web.Application, door: PilotDoor) -> None:
    """Serves `/pilot` and `/files` from `application`, and ends conversations when it stops."""
    for routes in (EnrolRoutes(door), SocketRoute(door), PollRoute(door), FileRoutes(door)):
        routes.add_to(application)

    async def say_goodbye(_: web.Application) -> None:
        closing = [
            socket.close(code=GOING_AWAY, message=b"the manager is stopping")
            for socket in list(door.sockets)
        ]
        for poll in list(door.polls):
            poll.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS / 2):
                await asyncio.gather(*closing, return_exceptions=True)

    application.on_shutdown.append(say_goodbye)


def make_application(guard: ConnectionGuard, middlewares: Iterable[Any] = ()) -> web.Application:
    """An empty application with everything that holds for all routes."""
    application = web.Application(middlewares=[guard.middleware(), *middlewares, problems])
    application.on_response_prepare.append(_secure)
    return application


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
    if isinstance(response, web.WebSocketResponse):  # no document, and thousands stay in memory
        return
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if sha256 := response.headers.get("X-Content-SHA256"):
        response.headers["ETag"] = f'"{sha256}"'


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    tls: ssl.SSLContext | None = None


class HttpServer:
    """Listens from `start` to `stop`."""

    def __init__(self, application: web.Application, guard: ConnectionGuard) -> None:
        self._guard = guard
        self._runner = web.AppRunner(
            application,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=75.0,
            lingering_time=2.0,
            shutdown_timeout=STOP_SECONDS,
        )
        self._server: asyncio.Server | None = None

    async def start(self, address: Address) -> int:
        """Listens; returns the port. Raises OSError when the address is taken."""
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None  # noqa: S101 - after setup
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._guard.wrap(inner),
            address.host,
            address.port,
            ssl=address.tls,
            backlog=1024,
            ssl_handshake_timeout=10 if address.tls else None,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Accepts nothing more, tells the sockets, waits a little for requests under way."""
        if self._server:
            self._server.close()
        await self._runner.cleanup()
        self._guard.stop()


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate. Raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context
