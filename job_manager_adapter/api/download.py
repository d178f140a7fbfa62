"""Sending stored files."""

import hashlib
from pathlib import Path

from aiohttp import web

CHUNK = 256 * 1024


def send_file(path: Path, sha256: str, filename: str) -> web.FileResponse:
    """The file, with ranges; never shown by a browser as a page of ours."""
    return web.FileResponse(path, chunk_size=CHUNK, headers=_headers(sha256, filename))


def send_nothing(filename: str) -> web.Response:
    """A file without content."""
    return web.Response(headers=_headers(hashlib.sha256().hexdigest(), filename))


def _headers(sha256: str, filename: str) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "X-Content-SHA256": sha256,
    }
