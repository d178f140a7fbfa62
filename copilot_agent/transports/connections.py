"""HTTP as the whole agent speaks it: bounded, verified, blind to the environment's proxies."""

import asyncio
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from pydantic import ValidationError

from copilot_agent.protocol.errors import Problem
from copilot_agent.transports.base import Dialer

MAX_REPLY_BYTES = 2 << 20
CONNECT_SECONDS = 20.0
REQUEST_SECONDS = 60.0


class DialConnector(aiohttp.TCPConnector):
    """Asks a dialer for each connection; nothing is resolved, TLS checks the real name."""

    def __init__(self, dialer: Dialer | None, context: ssl.SSLContext) -> None:
        super().__init__(ssl=context, limit=16, ttl_dns_cache=60, keepalive_timeout=75)
        self._dialer = dialer

    async def _create_direct_connection(
        self,
        req: ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
        *,
        client_error: type[Exception] = aiohttp.ClientConnectorError,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        host, port = req.url.host, req.url.port
        if self._dialer is not None and host and port:
            try:
                made = await self._dial(self._dialer, req, host, port, timeout)
            except OSError as error:
                raise aiohttp.ClientConnectorError(_key(req), error) from error
            if made is not None:
                return made
        return await super()._create_direct_connection(
            req, traces, timeout, client_error=client_error
        )

    async def _dial(
        self,
        dialer: Dialer,
        req: ClientRequest,
        host: str,
        port: int,
        timeout: aiohttp.ClientTimeout,
    ) -> tuple[asyncio.Transport, ResponseHandler] | None:
        async with asyncio.timeout(timeout.sock_connect):
            sock = await dialer.dial(host, port)
            if sock is None:
                return None
            context = self._get_ssl_context(req)
            return await self._loop.create_connection(
                self._factory, sock=sock, ssl=context, server_hostname=host if context else None
            )


def _key(req: ClientRequest) -> ConnectionKey:
    return req.connection_key


@lru_cache(maxsize=2)
def tls_context(extra_ca: str = "") -> ssl.SSLContext:
    """The system's certificates and `extra_ca` (PEM text); one for all uses, for it is large.

    Raises ValueError.
    """
    context = ssl.create_default_context()
    if extra_ca:
        try:
            context.load_verify_locations(cadata=extra_ca)
        except ssl.SSLError as error:
            raise ValueError(f"the extra CA certificates are no PEM: {error}") from error
    return context


def open_session(dialer: Dialer | None = None, extra_ca: str = "") -> aiohttp.ClientSession:
    """Needs a running loop; the caller closes it."""
    return aiohttp.ClientSession(
        connector=DialConnector(dialer, tls_context(extra_ca)),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "copilot-agent"},
        auto_decompress=False,
        trust_env=False,
    )


class RefusedError(Exception):
    """The server answered, and not with what was asked for."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        remedy = f"; {problem.remedy}" if problem.remedy else ""
        super().__init__(
            f"{problem.status} {problem.code}: {problem.detail or problem.title}{remedy}"
        )
        self.problem = problem
        self.headers = headers


def wait_seconds(headers: Mapping[str, str] | None) -> float:
    """From Retry-After; 0 if there is none, or a date: a guest's clock may be wrong."""
    text = (headers or {}).get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0


async def read_bounded(response: aiohttp.ClientResponse, limit: int = MAX_REPLY_BYTES) -> bytes:
    """The body. Raises aiohttp.ClientPayloadError beyond `limit`."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > limit:
            response.close()
            raise aiohttp.ClientPayloadError(f"the reply is longer than {limit} bytes")
    return bytes(body)


async def refusal(response: aiohttp.ClientResponse) -> RefusedError:
    """Reads what the server says about an error, whether it is one of ours or not."""
    body = await read_bounded(response)
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        status = response.status if 400 <= response.status <= 599 else 502
        reason = (response.reason or "")[:200]
        problem = Problem(title=f"HTTP {response.status} {reason}", status=status, code="unknown")
    return RefusedError(problem, response.headers)
