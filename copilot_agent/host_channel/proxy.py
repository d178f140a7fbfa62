"""A local HTTP proxy for one job's payload, if the job says that it needs the network.

CONNECT and absolute-form requests are forwarded through `dial`. Each job has its own proxy on a
random port of 127.0.0.1 and with its own password, so other payloads cannot use it.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from copilot_agent.host_channel.errors import EgressRefusedError

Dial = Callable[[str, int], Awaitable[socket.socket]]
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_MAX_HEAD_BYTES = 16 * 1024
_MAX_HEADERS = 100
_MAX_CONNECTIONS = 64
_HEAD_SECONDS = 30.0
_IDLE_SECONDS = 900.0
_BLOCK_BYTES = 64 * 1024
_USER = "job"
_HOP_HEADERS = {b"connection", b"keep-alive", b"te", b"upgrade"}
_END = "Connection: close\r\nContent-Length: 0\r\n\r\n"

log = logging.getLogger(__name__)


class _BadRequestError(Exception):
    """What the payload sent is answered with `status`."""

    def __init__(self, status: str, header: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.header = header


class _Head:
    """A request's first line and headers, checked as far as a proxy must."""

    def __init__(self, data: bytes) -> None:
        first, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
        words = first.split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise _BadRequestError("400 Bad Request")
        if len(lines) > _MAX_HEADERS:
            raise _BadRequestError("431 Request Header Fields Too Large")
        self.method, self.target, self.version = words
        self.headers = [_header(line) for line in lines]

    def get(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key.lower() == name), b"")

    def forwarded(self, path: str) -> bytes:
        """The request in the form that an origin expects; one request a connection."""
        lines = [b"%s %s %s" % (self.method, path.encode("ascii"), self.version)]
        lines += [
            b"%s: %s" % (key, value)
            for key, value in self.headers
            if key.lower() not in _HOP_HEADERS and not key.lower().startswith(b"proxy-")
        ]
        return b"\r\n".join([*lines, b"Connection: close", b"", b""])


class Proxy:
    """`async with Proxy(net.dial) as proxy:` and `proxy.environment()` for the payload."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._password = secrets.token_urlsafe(24)
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """With user name and password."""
        return f"http://{_USER}:{self._password}@127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """The variables by which curl, Python, wget and others find a proxy."""
        names = ("http_proxy", "https_proxy", "all_proxy")
        found = dict.fromkeys((*names, *(name.upper() for name in names)), self.url)
        return {**found, "no_proxy": "", "NO_PROXY": ""}

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES
        )
        self._port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except _BadRequestError as error:
            writer.write(f"HTTP/1.1 {error.status}\r\n{error.header}{_END}".encode())
        except asyncio.IncompleteReadError:
            log.debug("a payload closed its connection before it had asked for anything")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _read_head(reader)
        self._check_password(head)
        host, port, path = _where(head)
        async with _dialled(self._dial, host, port) as (far_reader, far_writer):
            if path is None:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(head.forwarded(path))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, far_writer))
                    group.create_task(_copy(far_reader, writer))
            except* OSError as errors:
                log.debug("a payload's connection broke: %s", errors.exceptions)
                writer.transport.abort()  # a plain close would look like an orderly end

    def _check_password(self, head: _Head) -> None:
        kind, _, given = head.get(b"proxy-authorization").partition(b" ")
        expected = base64.b64encode(f"{_USER}:{self._password}".encode())
        if kind.lower() != b"basic" or not hmac.compare_digest(given.strip(), expected):
            raise _BadRequestError(
                "407 Proxy Authentication Required",
                'Proxy-Authenticate: Basic realm="this job"\r\n',
            )


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name != name.strip() or b"\r" in line or b"\n" in line:
        raise _BadRequestError("400 Bad Request")
    return name, value.strip()


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            return _Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.LimitOverrunError:
        raise _BadRequestError("431 Request Header Fields Too Large") from None
    except TimeoutError:
        raise _BadRequestError("408 Request Timeout") from None


def _where(head: _Head) -> tuple[str, int, str | None]:
    """Host, port, and the path for an absolute-form request (None for CONNECT)."""
    try:
        target = head.target.decode("ascii")
        if head.method == b"CONNECT":
            parts = urlsplit(f"//{target}")
            path, default = None, 0
        else:
            parts = urlsplit(target)
            path, default = (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), 80
        host, port = parts.hostname or "", parts.port or default
    except ValueError:
        raise _BadRequestError("400 Bad Request") from None
    if not host or not port or (path is not None and parts.scheme != "http"):
        raise _BadRequestError("400 Bad Request")
    return host, port, path


@contextlib.asynccontextmanager
async def _dialled(dial: Dial, host: str, port: int) -> AsyncIterator[_Streams]:
    try:
        connected = await dial(host, port)
    except EgressRefusedError as error:
        raise _BadRequestError("403 Forbidden", f"Copilot-Refused: {error.reason}\r\n") from None
    except OSError:
        raise _BadRequestError("502 Bad Gateway") from None
    reader, writer = await asyncio.open_connection(sock=connected)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end, which it passes on. Raises TimeoutError when nothing moves for too long."""
    while True:
        async with asyncio.timeout(_IDLE_SECONDS):
            data = await reader.read(_BLOCK_BYTES)
            writer.write(data)
            await writer.drain()
        if not data:
            break
    if writer.can_write_eof():
        writer.write_eof()
