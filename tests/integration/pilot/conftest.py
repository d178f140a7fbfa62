"""A real manager and a real agent, without a VM."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import programs
from tests.harness.jobs import Jobs


@dataclass
class Setting(Jobs):
    """What a test works with."""

    root: Path
    manager: programs.ManagerProgram
    agent: programs.AgentProgram


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[Setting]:
    async with (
        programs.manager(root / "manager") as manager,
        programs.agent(manager) as agent,
        programs.client(manager) as client,
    ):
        yield Setting(client, root, manager, agent)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """A manager and an agent of the test's own, which it may kill."""
    async with running(tmp_path) as own:
        yield own


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    """One manager and one agent for all tests of a module, which must run in its loop."""
    async with running(tmp_path_factory.mktemp("shared")) as common:
        yield common


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
