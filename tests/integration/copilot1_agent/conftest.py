"""Servers for all tests of this directory, and an agent for each."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.chirp import ChirpServer, chirp_server
from tests.harness.copilot1_manager import OriginalManager, Redis
from tests.harness.copilot1_server import Copilot1Server, copilot1_server
from tests.integration.copilot1_agent.agent import COOLDOWN, Copilot1Agent, Submit


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chirp() -> AsyncIterator[ChirpServer]:
    async with chirp_server() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Copilot1Server]:
    async with copilot1_server() as started:
        yield started


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def submit(chirp: ChirpServer, redis: Redis) -> Submit:
    def submit_job(script: str, data: bytes = b"", **job: str) -> str:
        directory = chirp.directory(f"in-{secrets.token_hex(8)}", "rl")
        chirp.put(directory, "run.sh", script.encode())
        chirp.put(directory, "data", data)
        usual = {
            "chirpUrl": chirp.address,
            "inputDir": directory.name,
            "inputFiles": "run.sh###data###",
            "command": "run.sh",
            "arguments": "",
            "environment": "",
            "packages": "",
        }
        return redis.submit(**(usual | job))

    return submit_job


@pytest.fixture
async def managers(
    server: Copilot1Server, chirp: ChirpServer, redis: Redis
) -> AsyncIterator[Callable[..., OriginalManager]]:
    """Makes instances of one manager; whatever was started is stopped."""
    made: list[OriginalManager] = []

    def make(resource: str = "alpha", **rest: object) -> OriginalManager:
        options: dict[str, object] = {"cooldown": COOLDOWN, **rest}
        made.append(OriginalManager(server, redis, chirp, resource, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@pytest.fixture
async def agents(
    server: Copilot1Server, tmp_path: Path
) -> AsyncIterator[Callable[..., Copilot1Agent]]:
    """Makes agents, each with an account of its own; not started yet."""
    async with AsyncExitStack() as stack:

        def make(*options: str, trusted: bool = True) -> Copilot1Agent:
            name = f"agent-{secrets.token_hex(4)}"
            agent = Copilot1Agent(server, tmp_path, name, options, trusted)
            stack.push_async_callback(agent.stop)
            return agent

        yield make
