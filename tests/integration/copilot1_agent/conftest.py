"""A Chirp server, one for all tests of this directory."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.harness.chirp import ChirpServer, chirp_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chirp() -> AsyncIterator[ChirpServer]:
    async with chirp_server() as started:
        yield started
