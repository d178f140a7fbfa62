"""Those who talk over an XMPP server."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.xmpp import XmppServer
from tests.integration.xmpp.people import Manager, Pilot, manager, pilot


@pytest.fixture
def server(xmpp_server: XmppServer) -> XmppServer:
    return xmpp_server


@pytest.fixture
def kind(server: XmppServer) -> type[XmppServer]:
    """For a server of one's own."""
    return type(server)


@pytest.fixture
async def component(server: XmppServer) -> AsyncIterator[Manager]:
    async with manager(server) as connected:
        yield connected


@pytest.fixture
async def client(server: XmppServer, component: Manager) -> AsyncIterator[Pilot]:
    """A pilot that is logged in; its manager is there, too."""
    async with pilot(server) as entered:
        yield entered
