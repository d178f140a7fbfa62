"""An external component's stream (XEP-0114): in the clear, so on loopback only."""

import ipaddress
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from slixmpp import ComponentXMPP
from slixmpp.xmlstream.tostring import tostring

from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.guard import Limits
from copilot_agent.xmpp.stream import Guarded, SlixmppStream

_ACCEPT = "{jabber:component:accept}"
_CLIENT = "{jabber:client}"


@dataclass(frozen=True)
class ComponentLogin:
    name: str
    """The component's domain, as the server's configuration names it."""
    secret: str = field(repr=False)
    host: str
    port: int

    def __post_init__(self) -> None:
        if self.host != "localhost" and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError("a component connects on loopback: nothing of it is encrypted")


class _Component(Guarded, ComponentXMPP):
    def __init__(self, login: ComponentLogin, limits: Limits) -> None:
        ComponentXMPP.__init__(self, login.name, login.secret, login.host, login.port)
        self.guard(limits)

    def _spawn_event(self, xml: Element) -> None:
        """slixmpp's own way takes five times as long and is not needed for what is ours."""
        if self.inbox.live and xml.tag.startswith((_ACCEPT, _CLIENT)):
            for element in (xml, *xml):
                element.tag = element.tag.replace(_ACCEPT, _CLIENT)
            self.take(xml)
        else:
            super()._spawn_event(xml)


class ComponentStream(SlixmppStream):
    """A `StanzaStream`. Made while a loop runs."""

    def __init__(self, login: ComponentLogin, limits: Limits | None = None) -> None:
        self._login = login
        self._limits = limits or Limits()

    def _next(self) -> Guarded:
        return _Component(self._login, self._limits)

    def _address(self) -> tuple[str, int]:
        return self._login.host, self._login.port

    async def open(self) -> None:
        try:
            await super().open()
        except XmppError as error:
            if error.trouble is XmppTrouble.UNREACHABLE and "not-authorized" in error.message:
                raise XmppError(XmppTrouble.LOGIN, "the XMPP server refuses the secret") from error
            raise

    async def send_text(self, stanza: str) -> None:
        """One whole stanza that needs no namespace of its own. Raises XmppError."""
        (await self._may_send()).send_raw(stanza)

    async def send(self, stanza: Element) -> None:
        await self.send_text(tostring(stanza, xmlns=_CLIENT[1:-1]))
