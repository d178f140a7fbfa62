"""One XMPP server of Co-Pilot 1 and one Chirp server for all tests of this directory."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.chirp import ChirpServer, chirp_server
from tests.harness.copilot1_server import Copilot1Server, copilot1_server
from tests.integration.copilot1.settings import Setting, running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Copilot1Server]:
    async with copilot1_server() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chirp() -> AsyncIterator[ChirpServer]:
    async with chirp_server() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    server: Copilot1Server, chirp: ChirpServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Setting]:
    """One manager for all tests of a module, which must run in the session's loop."""
    root = tmp_path_factory.mktemp("manager")
    async with running(server, chirp, root, "restart_seconds = 0\n") as common:
        yield common
