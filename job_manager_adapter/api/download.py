"""Sending stored files."""

from pathlib import Path

from aiohttp import web

CHUNK = 256 * 1024


def send_file(path: Path, sha256: str, filename: str) -> web.FileResponse:
    """The file, with ranges; never shown by a browser as a page of ours."""
    return web.FileResponse(
        path,
        chunk_size=CHUNK,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{filename}"',
            "X-Content-SHA256": sha256,
        },
    )
