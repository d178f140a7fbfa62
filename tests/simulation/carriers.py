"""Which of the agent's real transports a pilot has, over which simulated wires."""

from collections.abc import Callable
from typing import Any

from copilot_agent.identity import Enroller
from copilot_agent.transports import carriers
from copilot_agent.transports.base import Transport
from copilot_agent.transports.http import SocketTransport
from copilot_agent.transports.ladder import Ladder, Rung
from copilot_agent.transports.poll import PollTransport
from copilot_agent.transports.xmpp import XmppTransport
from tests.simulation.session import PREFIX, SimulatedSession
from tests.simulation.xmpp_pilot import AgentStreams

Carriers = Callable[[Enroller, Callable[[], float]], Transport]
"""With the agent's monotonic clock."""


def over_http(session: SimulatedSession) -> Carriers:
    real: Any = session
    return lambda _, clock: carriers.over_http(real, PREFIX, clock)


def over_xmpp(streams: AgentStreams, session: SimulatedSession | None) -> Carriers:
    """`session`: and over HTTP when XMPP does not work."""
    real: Any = session

    def make(enroller: Enroller, clock: Callable[[], float]) -> Transport:
        rungs = [Rung("xmpp", XmppTransport(lambda: enroller.latest, streams))]
        if session is not None:
            rungs.append(Rung("websocket", SocketTransport(real, PREFIX)))
            rungs.append(Rung("poll", PollTransport(real, PREFIX)))
        return Ladder(rungs, clock)

    return make
