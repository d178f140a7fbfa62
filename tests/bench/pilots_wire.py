"""The two carriers as a simulated pilot needs them: bytes in, bytes out, and nothing parsed twice.

A pilot has to mask what it sends through a WebSocket; a mask of zeros (RFC 6455 allows any) costs
nothing here and as much as any other at the manager.
"""

import asyncio
import base64
import os
import struct
from collections.abc import Callable
from urllib.parse import urlsplit

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_NO_MASK = bytes(4)


def host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


class SocketWire(asyncio.Protocol):
    """One WebSocket."""

    def __init__(
        self, token: str, opened: Callable[[], None], text: Callable[[bytes], None],
        closed: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._token = token
        self._opened = opened
        self._text = text
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._open = False
        self._code = 1006

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /pilot/v1/socket HTTP/1.1\r\nHost: manager\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        if not self._open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if b" 101 " not in head[:20]:
                self.close()
                return
            self._open = True
            self._opened()
        self._buffer = self._frames(data)

    def _frames(self, data: bytes) -> bytes:
        """Deals with all whole frames; gives the rest."""
        start, end = 0, len(data)
        while end - start >= 2:
            size, head = data[start + 1], 2
            if size == 126 and end - start >= 4:
                (size,), head = struct.unpack_from("!H", data, start + 2), 4
            elif size == 127 and end - start >= 10:
                (size,), head = struct.unpack_from("!Q", data, start + 2), 10
            elif size >= 126:
                break
            if end - start < head + size:
                break
            kind, body = data[start] & 15, data[start + head : start + head + size]
            start += head + size
            self._heard(kind, body)
        return data[start:]

    def _heard(self, kind: int, body: bytes) -> None:
        if kind == _TEXT:
            self._text(body)
        elif kind == _PING:
            self._write(_PONG, body)
        elif kind == _CLOSE:
            self._code = int.from_bytes(body[:2], "big")
            self.close()

    def send(self, text: bytes) -> None:
        self._write(_TEXT, text)

    def _write(self, kind: int, body: bytes) -> None:
        size = len(body)
        if size < 126:
            head = struct.pack("!BB", 128 | kind, 128 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 128 | kind, 254, size)
        else:
            head = struct.pack("!BBQ", 128 | kind, 255, size)
        if self._transport is not None:
            self._transport.write(head + _NO_MASK + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed(self._code)


class HttpWire(asyncio.Protocol):
    """One kept-alive connection for one request at a time."""

    def __init__(
        self, answered: Callable[[int, bytes], None], closed: Callable[[int], None]
    ) -> None:
        self._answered = answered
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def post(self, path: str, body: bytes, token: str = "") -> None:
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: manager\r\n{bearer}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._transport is not None:
            self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head, end, body = data.partition(b"\r\n\r\n")
        if not end or len(body) < (size := _content_length(head)):
            self._buffer = data
            return
        self._buffer = body[size:]
        self._answered(int(head[9:12]), body[:size])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed(0)


def _content_length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\nContent-Length: ")
    return int(rest.partition(b"\r\n")[0]) if found else 0
