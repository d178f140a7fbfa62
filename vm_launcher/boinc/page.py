"""The page behind the BOINC manager's button "Show graphics": what the task is doing, in words.

Served on loopback only, read only, without scripts; it says nothing that the task list hides.
"""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Callable, Iterable

_REQUEST_SECONDS = 5.0
_MOST_BYTES = 8192
_MOST_AT_ONCE = 16
"""A browser needs a few. Others on this computer must not use up the launcher's descriptors."""
_HOSTS = ("127.0.0.1", "localhost")
_REFRESH_SECONDS = 5

Lines = Callable[[], Iterable[str]]
"""What there is to say now; the first line is the headline."""


@contextlib.asynccontextmanager
async def served(lines: Lines) -> AsyncIterator[str]:
    """The page's URL, while the block runs."""

    room = asyncio.Semaphore(_MOST_AT_ONCE)

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if room.locked():
            writer.transport.abort()
            return
        async with room:
            await answer(reader, writer)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    writer.write(_reply(await _head(reader), lines))
                    await writer.drain()
            finally:
                writer.close()

    server = await asyncio.start_server(come, "127.0.0.1", 0, limit=_MOST_BYTES)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://localhost:{port}"
    finally:
        server.close()


async def _head(reader: asyncio.StreamReader) -> list[str]:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        return [""]


def _reply(head: list[str], lines: Lines) -> bytes:
    if not head[0].startswith("GET / HTTP/1.") or not _asks_this_computer(head[1:]):
        return _response("404 Not Found", ["There is only one page here: /"], refresh=False)
    return _response("200 OK", list(lines()), refresh=True)


def _asks_this_computer(headers: list[str]) -> bool:
    """Another site's name that leads here gets nothing (DNS rebinding)."""
    hosts = [line[5:].strip() for line in headers if line.lower().startswith("host:")]
    return len(hosts) == 1 and hosts[0].rpartition(":")[0] in _HOSTS


def _response(status: str, lines: list[str], *, refresh: bool) -> bytes:
    body = _document(lines, refresh=refresh).encode()
    head = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _document(lines: list[str], *, refresh: bool) -> str:
    first, *rest = [html.escape(line) for line in lines] or [""]
    again = f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">' if refresh else ""
    items = "".join(f"<li>{line}</li>" for line in rest)
    return (
        f'<!DOCTYPE html><html lang="en"><head><title>Cloud Co-Pilot</title>{again}'
        "<style>body{font:1.1em sans-serif;max-width:40em;margin:3em auto;padding:0 1em}"
        "li{margin:.3em 0}</style></head>"
        f"<body><h1>{first}</h1><ul>{items}</ul></body></html>\n"
    )
