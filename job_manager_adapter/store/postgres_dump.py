"""A copy of the database by PostgreSQL's own pg_dump, consistent while managers work."""

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from job_manager_adapter.store.base import StoreError


async def dump(url: str, target: Path) -> None:
    """Writes pg_dump's custom format. Raises StoreError."""
    program = shutil.which("pg_dump")
    if program is None:
        raise StoreError(
            "pg_dump, PostgreSQL's own program for backups, is not on this machine",
            remedy="apt-get install postgresql-client, of the server's version or newer",
        )
    address, password = without_password(url)
    process = await asyncio.create_subprocess_exec(
        program,
        "--format=custom",
        "--no-owner",
        f"--file={target}",
        f"--dbname={address}",
        env={**os.environ, **({"PGPASSWORD": password} if password else {})},
        umask=0o077,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        target.unlink(missing_ok=True)
        reason = errors.decode(errors="replace").strip()
        raise StoreError(f"the backup to {target} failed: {reason}")


def without_password(url: str) -> tuple[str, str | None]:
    """The URL as other users of this machine may see it, and the password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    query = dict(parse_qsl(parts.query))
    asked = query.pop("password", None)
    rest = f"?{urlencode(query, safe='/')}" if query else ""
    clean = f"{parts.scheme}://{name}{at}{host}{parts.path}{rest}"
    return clean, unquote(password) if colon else asked
