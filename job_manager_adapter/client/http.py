"""One HTTP session with the manager: tokens, retries, problems turned into exceptions."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from copilot_agent.protocol.errors import CopilotError, ErrorCode, Problem

Model = TypeVar("Model", bound=BaseModel)

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
_TRIES = 5
_MAX_REPLY = 64 << 20


class ApiError(CopilotError):
    """The manager refused; `problem` is its whole answer."""

    def __init__(self, problem: Problem) -> None:
        code = ErrorCode(problem.code) if problem.code in set(ErrorCode) else ErrorCode.INTERNAL
        super().__init__(
            problem.detail or problem.title,
            remedy=problem.remedy,
            code=code,
            errors=tuple(problem.errors),
        )
        self.problem = problem


class UnreachableError(CopilotError):
    """The manager does not answer."""

    code = ErrorCode.UNAVAILABLE


class Http:
    """Requests to one manager. A GET or a PUT is repeated after a broken connection, 429 or 503."""

    def __init__(self, url: str, token: str, *, tries: int = _TRIES) -> None:
        self.base = URL(url.rstrip("/"))
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tries = tries
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, model: type[Model], **query: str | int | None) -> Model:
        async with self.open("GET", path, repeat=True, params=_present(query)) as reply:
            return _parse(await _body(reply), model)

    async def post(
        self, path: str, body: BaseModel | None, model: type[Model], *, repeat: bool = False
    ) -> Model:
        data = body.model_dump_json().encode() if body is not None else b"{}"
        headers = {"Content-Type": "application/json"}
        async with self.open("POST", path, repeat=repeat, data=data, headers=headers) as reply:
            return _parse(await _body(reply), model)

    async def post_empty(self, path: str, body: BaseModel | None = None) -> None:
        """For actions whose answer says nothing more than that it was done."""
        data = body.model_dump_json().encode() if body is not None else b"{}"
        headers = {"Content-Type": "application/json"}
        async with self.open("POST", path, repeat=True, data=data, headers=headers) as reply:
            await reply.read()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, repeat: bool = False, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The raw answer, already known to be a success.

        Raises ApiError, UnreachableError.
        """
        reply = await self._send(method, path, self._tries if repeat else 1, options)
        try:
            if reply.status >= 400:
                raise ApiError(await _problem(reply))
            yield reply
        finally:
            reply.release()

    async def _send(
        self, method: str, path: str, tries: int, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("use the client as an asynchronous context manager")
        for left in reversed(range(tries)):
            asked = 0.0
            try:
                reply = await self._session.request(method, self.base.joinpath(path), **options)
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                if not left:
                    raise _unreachable(self.base, error) from error
            else:
                if reply.status not in (429, 503) or not left:
                    return reply
                asked = _asked(reply)
                reply.release()
            await asyncio.sleep(max(asked, backoff(tries - left)))
        raise AssertionError("unreachable")


def _unreachable(
    base: URL, error: aiohttp.ClientConnectionError | TimeoutError
) -> UnreachableError:
    remedy = "check the URL and that `copilot-manager serve` runs there"
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why, remedy = f"{error.certificate_error}", "name the authority in SSL_CERT_FILE"
        case aiohttp.ClientSSLError():
            why, remedy = "it does not speak TLS as we do", "is it http:// rather than https://?"
        case aiohttp.ClientConnectorDNSError():
            why = "there is no host of that name"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))):
            why = os.strerror(number)
        case _:
            why = str(error) or type(error).__name__
    return UnreachableError(f"no answer from {base}: {why}", remedy=remedy)


def backoff(tried: int) -> float:
    """Doubling from 0.5 s with half jitter, so that many clients do not come back at once."""
    return float(min(8.0, 0.5 * 2 ** (tried - 1)) * random.uniform(0.5, 1))  # noqa: S311 - no secret


def _asked(reply: aiohttp.ClientResponse) -> float:
    """Seconds that the server wants to be left alone, up to 30; a little more, by chance."""
    text = reply.headers.get("Retry-After", "").strip()
    seconds = min(30.0, float(text)) if text.isascii() and text.isdigit() else 0.0
    return seconds * random.uniform(1, 1.5)  # noqa: S311 - no secret


def _present(query: dict[str, str | int | None]) -> dict[str, str | int]:
    return {key: value for key, value in query.items() if value is not None}


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    data = await reply.content.read(_MAX_REPLY)
    while not reply.content.at_eof():
        more = await reply.content.read(_MAX_REPLY)
        data += more
        if len(data) > _MAX_REPLY:
            raise CopilotError("the manager's answer is absurdly long")
    return data


def _parse(data: bytes, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise CopilotError(
            f"the manager's answer is not a {model.__name__}: {error.errors()[0]['msg']}",
            remedy="client and manager may be of different versions",
        ) from error


async def _problem(reply: aiohttp.ClientResponse) -> Problem:
    try:
        return Problem.model_validate_json(await reply.content.read(1 << 20))
    except ValidationError:
        return Problem(title=reply.reason or "error", status=reply.status, code=ErrorCode.INTERNAL)
