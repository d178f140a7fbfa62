"""The carriers of an agent, as its settings order them."""

import time
from collections.abc import Callable

import aiohttp

from copilot_agent.identity import Enroller
from copilot_agent.settings import Carrier, Settings
from copilot_agent.transports.base import Transport
from copilot_agent.transports.http import SocketTransport
from copilot_agent.transports.ladder import Ladder, Rung
from copilot_agent.transports.poll import PollTransport


def carriers(
    settings: Settings,
    session: aiohttp.ClientSession,
    enroller: Enroller,
    clock: Callable[[], float] = time.monotonic,
) -> Ladder:
    """See `Settings.carriers`."""

    def rung(carrier: Carrier) -> Transport:
        match carrier:
            case Carrier.WEBSOCKET:
                return SocketTransport(session, settings.manager)
            case Carrier.POLL:
                return PollTransport(session, settings.manager)
            case Carrier.XMPP:
                return _xmpp(settings, enroller)

    return Ladder([Rung(carrier.value, rung(carrier)) for carrier in settings.carriers], clock)


def over_http(
    session: aiohttp.ClientSession, manager: str, clock: Callable[[], float] = time.monotonic
) -> Ladder:
    """The usual ones."""
    socket, poll = SocketTransport(session, manager), PollTransport(session, manager)
    return Ladder([Rung("websocket", socket), Rung("poll", poll)], clock)


def _xmpp(settings: Settings, enroller: Enroller) -> Transport:
    """Imported here: without XMPP nobody pays for it in memory."""
    from copilot_agent.transports.xmpp import XmppTransport
    from copilot_agent.transports.xmpp_streams import Streams

    streams = Streams(settings.ca_certificates, settings.xmpp_server)
    return XmppTransport(lambda: enroller.latest, streams)
