"""A real manager and a real agent, without a VM."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.client import Client
from job_manager_adapter.views import JobView
from tests.harness import programs


@dataclass
class Setting:
    """What a test works with."""

    root: Path
    manager: programs.ManagerProgram
    agent: programs.AgentProgram
    client: Client

    async def submit(self, *command: str, **fields: object) -> JobId:
        data = {"experiment": programs.EXPERIMENT, "command": command, **fields}
        data.setdefault("requirements", {"memory_mib": 64, "disk_mib": 64})
        reply = await self.client.jobs.submit([JobSpec.model_validate(data)])
        return reply.jobs[0]

    async def ended(self, job: JobId, seconds: float = 30.0) -> JobView:
        async def final() -> bool:
            return (await self.client.jobs.show(job)).state.final

        await programs.eventually(final, seconds, f"the end of {job}")
        return await self.client.jobs.show(job)

    async def reached(self, job: JobId, state: str, seconds: float = 20.0) -> JobView:
        async def there() -> bool:
            return (await self.client.jobs.show(job)).state == state

        await programs.eventually(there, seconds, f"{job} {state}")
        return await self.client.jobs.show(job)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with (
        programs.manager(tmp_path / "manager") as manager,
        programs.agent(manager) as agent,
        programs.client(manager) as client,
    ):
        yield Setting(tmp_path, manager, agent, client)


class Gate:
    """A payload that says when it runs and ends when it is let go."""

    def __init__(self, directory: Path, name: str) -> None:
        self.started = directory / f"{name}.started"
        self.go = directory / f"{name}.go"

    @property
    def command(self) -> tuple[str, ...]:
        script = 'echo $$ >>"$1"; until [ -e "$2" ]; do sleep 0.05; done; echo done >result'
        return ("/bin/sh", "-c", script, "gate", str(self.started), str(self.go))

    @property
    def pids(self) -> list[int]:
        """Of every start, the oldest first."""
        return [int(line) for line in self.started.read_text().split()]

    async def runs(self, starts: int = 1) -> None:
        def begun() -> bool:
            return self.started.exists() and len(self.pids) >= starts

        await programs.eventually(begun, 20, f"start {starts} of the payload")

    def open(self) -> None:
        self.go.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path, "gate")
