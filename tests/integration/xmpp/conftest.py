"""Both XMPP servers, each started once for all tests of this directory."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.ejabberd import Ejabberd
from tests.harness.xmpp import Prosody, XmppServer, running
from tests.integration.xmpp.people import Manager, Pilot, manager, pilot

KINDS: list[type[XmppServer]] = [Prosody, Ejabberd]


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[XmppServer]:
    chosen: type[XmppServer] = request.param
    return chosen


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(kind: type[XmppServer]) -> AsyncIterator[XmppServer]:
    async with running(kind) as started:
        yield started


@pytest.fixture
async def component(server: XmppServer) -> AsyncIterator[Manager]:
    async with manager(server) as connected:
        yield connected


@pytest.fixture
async def client(server: XmppServer, component: Manager) -> AsyncIterator[Pilot]:
    """A pilot that is logged in; its manager is there, too."""
    async with pilot(server) as entered:
        yield entered
