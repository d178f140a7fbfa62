"""One XMPP server of Co-Pilot 1 for all tests of this directory."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.harness.copilot1_server import Copilot1Server, copilot1_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Copilot1Server]:
    async with copilot1_server() as started:
        yield started
