"""Manager processes on one PostgreSQL database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.demo.processes import call
from job_manager_adapter.client import Client
from tests.harness.jobs import Jobs
from tests.harness.postgres import Postgres
from tests.harness.programs import ManagerProgram


@dataclass
class House:
    """Managers that share a database."""

    folder: Path
    url: str
    lease_seconds: float = 3.0
    managers: list[ManagerProgram] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def manager(self) -> ManagerProgram:
        """One more, not started."""
        made = ManagerProgram(
            self.folder / f"m{len(self.managers)}",
            heartbeat_seconds=0.5,
            lease_seconds=self.lease_seconds,
            settings=f'[store]\nurl = "{self.url}"\nshared_dir = "{self.folder / "shared"}"\n',
        )
        self.managers.append(made)
        self._stack.push_async_callback(made.stop)
        return made

    async def start(self, count: int) -> list[ManagerProgram]:
        """All at once."""
        new = [self.manager() for _ in range(count)]
        await asyncio.gather(*(one.start() for one in new))
        return new

    @property
    def urls(self) -> list[str]:
        return [one.url for one in self.managers]

    @property
    def headers(self) -> dict[str, str]:
        """An operator's."""
        return {"Authorization": f"Bearer {self.managers[0].token}"}

    async def secrets(self, count: int = 1) -> list[str]:
        command = (*self.managers[0].command, "enrolment", "create", "--output", "quiet")
        return (await call((*command, "--count", str(count)))).split()

    async def jobs(self, index: int) -> Jobs:
        """Through that manager."""
        one = self.managers[index]
        client = await self._stack.enter_async_context(Client(one.url, self.managers[0].token))
        return Jobs(client)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def house(postgres: Postgres, tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, postgres.database())
    try:
        yield made
    finally:
        await made.close()
