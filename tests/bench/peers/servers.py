"""A bench's own Redis and PostgreSQL: on loopback or a socket, in a directory, stopped by pid."""

import asyncio
import os
import pwd
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.demo.processes import Process, program
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
    """Its connection string. Everything as Debian has it: fsync and synchronous_commit are on."""
    folder = root / "postgres"
    folder.mkdir(mode=0o700)
    become = _unprivileged(folder)
    bin_ = postgres_programs()
    initdb = ("initdb", "--auth=trust", "--username=peer", "--no-instructions")
    async with program(
        "initdb",
        (*become, str(bin_ / initdb[0]), *initdb[1:], "--pgdata", str(folder / "data")),
        root / "initdb.log",
    ) as made:
        if await made.wait():
            raise RuntimeError(f"initdb failed: {made.last_words()}")
    argv = (
        *become,
        str(bin_ / "postgres"),
        "-D",
        str(folder / "data"),
        "-k",
        str(folder),
        "-h",
        "",
    )
    async with program("postgres", argv, root / "postgres.log") as server:
        await _answers(folder / ".s.PGSQL.5432", server)
        yield f"host={folder} user=peer dbname=postgres"


def postgres_programs() -> Path:
    """Where Debian keeps the newest installed version's. Raises FileNotFoundError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: run `make bench`, which does it")
    return found[-1].parent


def _unprivileged(folder: Path) -> tuple[str, ...]:
    """What to put before a program that refuses to be root; `folder` becomes its user's."""
    if os.geteuid():
        return ()
    user = pwd.getpwnam("postgres")
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


async def _answers(socket: Path, server: Process) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            server.check()
            try:
                _, writer = await asyncio.open_unix_connection(socket)
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
