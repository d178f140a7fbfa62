"""Watches connections: no slow heads, no silent strangers, not too many from one address.

aiohttp itself waits for ever for a request's head and for its first byte.
"""

import asyncio
import ipaddress
from collections import Counter
from typing import cast

from aiohttp import web

CLOSED_BY_GUARD = "closed by the connection guard"


class _Watched(asyncio.Protocol):
    """Stands between a socket and aiohttp's protocol and notes when what came."""

    __slots__ = ("_guard", "address", "busy", "inner", "transport", "waiting_since")

    def __init__(self, guard: "ConnectionGuard", inner: asyncio.Protocol) -> None:
        self._guard = guard
        self.inner = inner
        self.transport: asyncio.Transport | None = None
        self.address: str | None = None
        self.busy = False
        self.waiting_since: float | None = None
        """Since when a request's head is due: from the start, or from its first byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.waiting_since = self._guard.now()
        if not self._guard.admit(self):
            self.transport.abort()
            return
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self.waiting_since is None:
            self.waiting_since = self._guard.now()
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._guard.forget(self):
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class ConnectionGuard:
    """Makes watched connections and closes those that keep us waiting."""

    def __init__(
        self,
        *,
        request_seconds: float = 15.0,
        per_address: int = 256,
        count_loopback: bool = False,
    ) -> None:
        self._request_seconds = request_seconds
        self._per_address = per_address
        self._count_loopback = count_loopback
        self._loop = asyncio.get_running_loop()
        self._open: set[_Watched] = set()
        self._addresses: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self.closed = 0
        self.refused = 0

    def wrap(self, server: web.Server) -> asyncio.Protocol:
        """A protocol for one new connection to `server`."""
        return _Watched(self, server())

    def now(self) -> float:
        return self._loop.time()

    def admit(self, connection: _Watched) -> bool:
        """Registers a connection; false if its address has too many."""
        transport = connection.transport
        assert transport is not None  # noqa: S101 - set by the caller
        address = self._counted(transport.get_extra_info("peername"))
        if address and self._addresses[address] >= self._per_address:
            self.refused += 1
            return False
        if address:
            self._addresses[address] += 1
        connection.address = address
        self._open.add(connection)
        self._arm()
        return True

    def forget(self, connection: _Watched) -> bool:
        """Whether the connection had been admitted."""
        if connection not in self._open:
            return False
        self._open.discard(connection)
        if connection.address:
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]
        return True

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def middleware(self) -> "web.middleware":  # type: ignore[valid-type]
        """Tells the guard when a request is being served."""

        @web.middleware
        async def watch(request: web.Request, handler: object) -> web.StreamResponse:
            transport = request.transport
            connection = transport.get_protocol() if transport else None
            if isinstance(connection, _Watched):
                connection.busy, connection.waiting_since = True, None
            try:
                return await handler(request)  # type: ignore[operator,no-any-return]
            finally:
                if isinstance(connection, _Watched):
                    connection.busy = False

        return watch

    def _counted(self, peer: object) -> str | None:
        if not self._per_address or not isinstance(peer, tuple):
            return None
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if address.is_loopback and not self._count_loopback:
            return None
        if isinstance(address, ipaddress.IPv6Address) and not address.ipv4_mapped:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def _arm(self) -> None:
        if self._timer is None and self._open:
            pause = max(self._request_seconds / 10, 0.05)
            self._timer = self._loop.call_later(pause, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        deadline = self.now() - self._request_seconds
        for connection in list(self._open):
            since = connection.waiting_since
            if not connection.busy and since is not None and since < deadline:
                self.closed += 1
                if connection.transport:
                    connection.transport.abort()
        self._arm()
