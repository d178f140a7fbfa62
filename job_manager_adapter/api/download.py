"""Sending stored files."""

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from copilot_agent.blocks import LONG, keep_freed_memory, read_long

CHUNK = 256 * 1024
_PLACES = asyncio.Semaphore(8)
"""For files that go past the page cache: each takes memory."""


def send_file(
    path: Path, sha256: str, filename: str, *, wanted_again: bool = False
) -> web.FileResponse:
    """The file, with ranges; never shown by a browser as a page of ours.

    A long one is kept in the system's page cache only if it is `wanted_again`.
    """
    kind = web.FileResponse if wanted_again else _PastTheCache
    return kind(path, chunk_size=CHUNK, headers=_headers(sha256, filename))


class _PastTheCache(web.FileResponse):
    async def _sendfile(
        self, request: web.BaseRequest, fobj: IO[Any], offset: int, count: int
    ) -> AbstractStreamWriter:
        if count < LONG or _PLACES.locked():
            return await super()._sendfile(request, fobj, offset, count)
        keep_freed_memory()
        async with _PLACES, aclosing(read_long(Path(fobj.name), offset, count)) as body:
            writer = await web.StreamResponse.prepare(self, request)
            assert writer is not None  # noqa: S101 - nobody has prepared it before
            async for block in body:
                await writer.write(block)
        await self.write_eof()
        return writer


def send_nothing(filename: str) -> web.Response:
    """A file without content."""
    return web.Response(headers=_headers(hashlib.sha256().hexdigest(), filename))


def _headers(sha256: str, filename: str) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "X-Content-SHA256": sha256,
    }
