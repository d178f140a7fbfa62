"""Streams of a pilot's account; a stream that broke is gone on with."""

from copilot_agent.protocol.base import split_host_port
from copilot_agent.protocol.xmpp import RESOURCE, XmppAddress
from copilot_agent.transports.connections import tls_context
from copilot_agent.xmpp.client import ClientStream, Login


class Streams:
    """`server` instead of the one that the manager names: the guest's way through its launcher."""

    def __init__(self, extra_ca: str, server: tuple[str, int] | None) -> None:
        self._tls = tls_context(extra_ca)
        self._server = server
        self._kept: tuple[str, XmppAddress, ClientStream] | None = None

    def __call__(self, pilot: str, address: XmppAddress, token: str) -> ClientStream:
        """Not opened yet."""
        if self._kept is None or self._kept[:2] != (pilot, address):
            self._kept = pilot, address, self._new(pilot, address, token)
        stream = self._kept[2]
        stream.use_password(token)
        return stream

    def _new(self, pilot: str, address: XmppAddress, token: str) -> ClientStream:
        host, port = self._server or split_host_port(address.server)
        return ClientStream(
            Login(
                jid=f"{pilot}@{address.domain}",
                password=token,
                resource=RESOURCE,
                host=host,
                port=port,
                tls=self._tls,
                resume=True,
            )
        )
