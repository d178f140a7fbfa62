"""PostgreSQL as a victim: all its processes killed, stopped, or shut down for a while."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.harness import programs
from tests.harness.postgres import Postgres


class Database(Postgres):
    """A cluster with one database, whose name is `copilot`."""

    @property
    def address(self) -> str:
        return self.url("copilot")

    @property
    def runs(self) -> bool:
        return self._process is not None

    def pids(self) -> list[int]:
        """The postmaster, and the processes that it has started."""
        return [self.pid, *(pid for pid in _all_pids() if _parent(pid) == self.pid)]

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        """SIGKILL to each of them, and see them gone."""
        pids = self.pids()
        self.signal(signal.SIGKILL)
        self.stop()
        gone = "the database's end"
        await programs.eventually(lambda: not any(map(programs.alive, pids)), 10, gone)

    async def begin(self) -> None:
        """Starts it, and waits until it has recovered."""
        await asyncio.to_thread(self.start)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """A running one; nothing is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="copilot-pg-"))  # short: it holds a unix socket
    made = Database(folder)
    try:
        await asyncio.to_thread(made.make)
        await made.begin()
        await asyncio.to_thread(made.run, "createdb", "--username", "copilot", "copilot")
        yield made
    finally:
        await asyncio.to_thread(made.stop, signal.SIGQUIT)
        await programs.eventually(lambda: not programs.naming(folder), 10, "the database's end")
        shutil.rmtree(folder)
