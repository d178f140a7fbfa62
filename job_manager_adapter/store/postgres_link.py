"""Connections to PostgreSQL, and its schema."""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import asyncpg

from copilot_agent.protocol.errors import ErrorCode
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.postgres_group import FAILURES, store_error

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
OLDEST = 130000
"""Server version."""
_MIGRATION = re.compile(r"^(\d{4})_\w+\.sql$")
_COMMON = {
    "jit": "off",
    "synchronous_commit": "on",
    "timezone": "UTC",
    # a manager on a computer that vanished must not hold its locks for long
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
}
# Plans are made once and before the tables have grown: only the indexed way is right then.
WRITER: Mapping[str, str] = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
READER: Mapping[str, str] = {"default_transaction_read_only": "on", "statement_timeout": "20s"}


class Link:
    """How to reach the database; the URL, which has a password, stays in here."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self, name: str, more: Mapping[str, str] | None = None) -> Any:
        """Raises what asyncpg raises; see `store_error`."""
        return await asyncpg.connect(self._url, **self._options(name, more))

    async def pool(self, name: str, size: int) -> Any:
        return await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=size,
            command_timeout=READ_SECONDS,
            **self._options(name, READER),
        )

    def _options(self, name: str, more: Mapping[str, str] | None) -> dict[str, Any]:
        settings = {"application_name": f"copilot-manager {name}", **_COMMON, **(more or {})}
        return {"timeout": CONNECT_SECONDS, "server_settings": settings}


async def migrate(link: Link) -> None:
    """Brings the schema up to date, each step in one transaction; one manager at a time does it.

    Raises StoreError, for a newer schema and an older server with the remedy.
    """
    try:
        connection = await link.connect("schema")
    except (*FAILURES, ValueError) as error:
        raise _unreachable(error) from None  # its context would show the URL
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext('copilot.schema'))")
        await _migrate(connection)
    except FAILURES as error:
        raise store_error(error) from error
    finally:
        await connection.close()


async def _migrate(connection: Any) -> None:
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < OLDEST:
        raise StoreError(
            f"PostgreSQL {number // 10000} is too old",
            remedy=f"use PostgreSQL {OLDEST // 10000} or newer",
            code=ErrorCode.CONFLICT,
        )
    await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version int NOT NULL)")
    version = await connection.fetchval("SELECT max(version) FROM schema_version") or 0
    steps = migrations()
    if version > len(steps):
        raise StoreError(
            f"the database has schema {version}, this program knows {len(steps)}",
            remedy="use the newer program that wrote it, or restore a backup from before",
            code=ErrorCode.CONFLICT,
        )
    for step, script in enumerate(steps[version:], start=version + 1):
        async with connection.transaction():
            await connection.execute(script)
            await connection.execute("INSERT INTO schema_version VALUES ($1)", step)


def migrations() -> list[str]:
    folder = resources.files("job_manager_adapter.store") / "migrations" / "postgres"
    files = {item.name: item for item in folder.iterdir() if _MIGRATION.match(item.name)}
    return [files[name].read_text("utf-8") for name in sorted(files)]


def _unreachable(error: Exception) -> StoreError:
    if isinstance(error, ValueError):  # may quote the URL
        return StoreError(
            "store.url is no URL that PostgreSQL's clients understand",
            remedy="postgresql://USER@HOST:5432/DATABASE",
            code=ErrorCode.INVALID_REQUEST,
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"{error}", remedy="create it: createdb --owner USER DATABASE")
    return store_error(error)
