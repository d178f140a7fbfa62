"""A bench's own Redis and PostgreSQL: on loopback or a socket, in a directory, stopped by pid."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.demo.processes import program
from tests.harness.postgres import cluster
from tests.harness.programs import free_port

READY_SECONDS = 30.0


@asynccontextmanager
async def redis(root: Path) -> AsyncIterator[str]:
    """Its URL. `appendfsync everysec` is Redis's own durable default."""
    port, folder = free_port(), root / "redis"
    folder.mkdir()
    argv = (
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    )
    async with program("redis", argv, root / "redis.log"):
        await _listens(port)
        yield f"redis://127.0.0.1:{port}/0"


async def _listens(port: int) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@asynccontextmanager
async def postgres(root: Path) -> AsyncIterator[str]:
    """Its URL. Everything as Debian has it: fsync and synchronous_commit are on."""
    with cluster() as made:
        yield made.database()
