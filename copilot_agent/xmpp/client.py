"""A client's stream: STARTTLS with the domain's certificate, SASL, one resource."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element

from slixmpp import JID, ClientXMPP
from slixmpp.stanza import Iq, Message, Presence, StreamFeatures
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.stanzabase import StanzaBase

from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.guard import Limits
from copilot_agent.xmpp.stream import Guarded, SlixmppStream

CLIENT = "{jabber:client}"
LONG_TAG = 2000
"""Servers' expat (see `guard`) puts off a tag that came in several reads until as much again has
come, so longer ones are followed by blanks: originals have all that they say in attributes."""
MOST_UNACKNOWLEDGED = 1000
"""Stanzas of ours that are kept until the server has them; it is asked after every fifth."""
_STANZAS: dict[str, type[Iq | Message | Presence]] = {
    CLIENT + "iq": Iq,
    CLIENT + "message": Message,
    CLIENT + "presence": Presence,
}


@dataclass(frozen=True)
class Login:
    """Who logs in, where, and how."""

    jid: str
    """Bare: user@domain. The certificate must be the domain's."""
    password: str = field(repr=False)
    resource: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    """None: in the clear where the server has no TLS. For old servers on a trusted wire only."""
    mechanisms: frozenset[str] = frozenset({"PLAIN"})
    """SASL's, of those that may be used."""
    resume: bool = False
    """Stream management: what a broken connection did not bring is brought by the next one."""


class _Client(Guarded, ClientXMPP):
    def __init__(self, login: Login, limits: Limits) -> None:
        ClientXMPP.__init__(self, f"{login.jid}/{login.resource}", login.password)
        self.guard(limits)
        self._encrypts = login.tls is not None
        self.enable_direct_tls = False
        # what is sent is what was meant: acknowledgements of Co-Pilot 1 have no id
        self.use_message_ids = self.use_presence_ids = False
        self.ssl_context = login.tls or _unverified()
        mechanisms = self.plugin["feature_mechanisms"]
        mechanisms.use_mechs = set(login.mechanisms)
        mechanisms.config["unencrypted_plain"] = login.tls is None
        self._log_in: Callable[[StreamFeatures], object] = mechanisms._handle_sasl_auth
        self.register_feature("mechanisms", self._authenticate, restart=True, order=100)
        if login.resume:
            self.register_plugin("xep_0198")
        for tag in _STANZAS:
            self.register_handler(Callback(f"every {tag}", MatchXPath(tag), self._stanza))
        self.add_event_handler("session_bind", self._bound)
        self.add_event_handler("failed_all_auth", self._refused)
        self.add_event_handler("ssl_invalid_chain", self._untrusted)

    @property
    def resumable(self) -> bool:
        """Whether the server has been asked to keep the stream."""
        return "xep_0198" in self.plugin and bool(self.plugin["xep_0198"].sm_id)

    def _authenticate(self, features: StreamFeatures) -> object:
        if self._encrypts and "starttls" not in self.features:
            self.give_up(XmppError(XmppTrouble.TLS, "the XMPP server offers no TLS"))
            return True
        return self._log_in(features)

    @property
    def unacknowledged(self) -> int:
        return len(self.plugin["xep_0198"].unacked_queue) if "xep_0198" in self.plugin else 0

    def start(self) -> None:
        """slixmpp would also talk to whoever asks for neither TLS nor a login."""
        if self._encrypts and not isinstance(self.socket, ssl.SSLObject):
            self.give_up(XmppError(XmppTrouble.TLS, "the XMPP server offers no TLS"))
        else:
            super().start()

    def _stanza(self, stanza: StanzaBase) -> None:
        if self.inbox.live:  # before, they are slixmpp's
            self.take(stanza.xml)

    def _bound(self, jid: JID) -> None:
        if jid.resource != self.requested_jid.resource:  # slixmpp takes a refusal for success
            text = f"the XMPP server does not give the name {self.requested_jid}"
            self.inbox.fail(XmppError(XmppTrouble.LOGIN, text))

    def _refused(self, _: object) -> None:
        self.inbox.fail(XmppError(XmppTrouble.LOGIN, "the XMPP server refuses the login"))

    def _untrusted(self, error: object) -> None:
        text = f"the XMPP server does not prove that it is {self.boundjid.domain}: {error}"
        self.give_up(XmppError(XmppTrouble.TLS, text[:500]))


class ClientStream(SlixmppStream):
    """A `StanzaStream`. With `resume` a broken stream goes on where it ended, if the server can."""

    def __init__(self, login: Login, limits: Limits | None = None) -> None:
        self._login = login
        self._limits = limits or Limits()
        self._client: _Client | None = None

    def use_password(self, password: str) -> None:
        """From the next `open` on."""
        self._login = replace(self._login, password=password)

    def _next(self) -> Guarded:
        if self._client is None or not self._client.resumable:
            self._client = _Client(self._login, self._limits)
        self._client.password = self._login.password
        return self._client

    def _address(self) -> tuple[str, int]:
        return self._login.host, self._login.port

    @property
    def jid(self) -> str:
        """Full, as the server has bound it."""
        return str(self._client.boundjid.full) if self._client else ""

    async def close(self) -> None:
        """See `StanzaStream`. Only what broke is gone on with."""
        if self._client is not None and self._client.inbox.live:
            self._client = None
        await super().close()

    async def send(self, stanza: Element) -> None:
        """See `StanzaStream`; raises KeyError for what is no stanza."""
        xmpp = await self._may_send()
        if self._client is not None and self._client.unacknowledged >= MOST_UNACKNOWLEDGED:
            self._client = None  # all of it would be sent again
            xmpp.give_up(XmppError(XmppTrouble.LIMIT, "the XMPP server acknowledges nothing"))
            await self._may_send()  # raises it
        xmpp.send(_STANZAS[stanza.tag](xmpp, xml=stanza))
        if (longest := _longest_tag(stanza)) > LONG_TAG:
            xmpp.send(longest * " ")


def _longest_tag(stanza: Element) -> int:
    """About: the values of its attributes."""
    return max(sum(map(len, element.attrib.values())) for element in stanza.iter())


def _unverified() -> ssl.SSLContext:
    """For servers from the time when nobody checked; only where the operator asked for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
