"""Those who talk over an XMPP server in its tests: pilots, a manager's component, and strangers."""

import asyncio
import base64
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree

from slixmpp import JID, ClientXMPP, ComponentXMPP, Iq
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath
from slixmpp.xmlstream.stanzabase import StanzaBase
from slixmpp.xmlstream.xmlstream import XMLStream

from copilot_agent.protocol.ids import make_id
from job_manager_adapter.transports.http.tokens import AccessTokens
from tests.harness.xmpp import DOMAIN, MANAGERS, XmppServer

FRAME = "{urn:cloud-copilot:test}frame"
MANAGER = MANAGERS[0]
SECONDS = 20.0
"""Nothing here takes as long."""


def pilot_id() -> str:
    return make_id("p", time.time(), random.getrandbits(50))


def token(server: XmppServer, pilot: str, age: float = 0) -> str:
    """As the manager issues it; it lasts an hour, and is `age` seconds old."""
    return AccessTokens(server.key).issue(pilot, time.time() - age)[0]


class Returning(XMLStream):
    """Comes back when its connection ends, soon and until it succeeds."""

    def stay(self) -> None:
        """From now on."""
        self.add_event_handler("disconnected", self._come_back)
        self.add_event_handler("connection_failed", self._come_back)

    async def leave(self) -> None:
        """For good."""
        self.del_event_handler("disconnected", self._come_back)
        self.del_event_handler("connection_failed", self._come_back)
        self.cancel_connection_attempt()
        await self.disconnect(wait=1.0)

    def go(self) -> None:
        raise NotImplementedError

    def _come_back(self, _: object) -> None:
        self.loop.call_later(0.05, self.go)


class Pilot(Returning, ClientXMPP):
    """Logs in, asks, and remembers what was said to it."""

    def __init__(
        self, server: XmppServer, pilot: str, password: str, trusts: Path | None = None
    ) -> None:
        super().__init__(f"{pilot}@{DOMAIN}/pilot", password)
        self.ssl_context = ssl.create_default_context(cafile=trusts or server.authority.file)
        self.enable_direct_tls = self.enable_plaintext = False
        self.received: list[str] = []
        """Who sent a stanza that was no answer."""
        self.sent: list[str] = []
        self._port = server.c2s_port
        for name in ("message", "presence_available"):
            self.add_event_handler(name, self._receive)
        self.register_handler(Callback("frames", StanzaPath("iq@type=set"), self._answer))

    def go(self) -> None:
        self.connect("127.0.0.1", self._port)

    def send_raw(self, data: str | bytes) -> None:
        self.sent.append(data if isinstance(data, str) else data.decode())
        super().send_raw(data)

    async def first_of(self, *events: str) -> str:
        """Waits until one of them happens; its name."""
        waits = {asyncio.ensure_future(self.wait_until(name, SECONDS)): name for name in events}
        done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in rest:
            wait.cancel()
        (first, *_) = done
        first.result()
        return waits[first]

    async def enter(self) -> str:
        """Tries to log in: session_start, or what happened instead."""
        self.go()
        return await self.first_of("session_start", "failed_auth", "disconnected")

    def frame(self, to: str, size: int = 2) -> Iq:
        """An IQ with a frame of about `size` bytes."""
        iq: Iq = self.make_iq_set(ito=JID(to))
        iq.append(_element("x" * size))
        return iq

    async def ask(self, to: str, size: int = 2) -> str:
        """Sends a frame; the answer's text. Raises slixmpp's IqError."""
        answer = await self.frame(to, size).send(timeout=SECONDS)
        return answer.xml.findtext(FRAME) or ""

    def _receive(self, stanza: StanzaBase) -> None:
        self.received.append(str(stanza["from"]))

    def _answer(self, iq: StanzaBase) -> None:
        self.received.append(str(iq["from"]))
        iq.reply().send()


class Manager(Returning, ComponentXMPP):
    """Answers each frame with its length, and comes back when the server does."""

    def __init__(self, server: XmppServer, secret: str | None = None) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            MANAGER, secret or server.secret, "127.0.0.1", server.component_port
        )
        self.register_handler(Callback("frames", StanzaPath("iq@type=set"), self._answer))

    def go(self) -> None:
        self.connect()

    def _answer(self, iq: StanzaBase) -> None:
        answer = iq.reply()
        answer.append(_element(str(len(iq.xml.findtext(FRAME) or ""))))
        answer.send()


def _element(text: str) -> ElementTree.Element:
    element = ElementTree.Element(FRAME)
    element.text = text
    return element


class Stranger:
    """Speaks XMPP by hand, also what no client would say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, text: str, until: str) -> str:
        """Sends `text`; all that is heard up to `until` or to the end of the connection."""
        self._writer.write(text.encode())
        heard = b""
        async with asyncio.timeout(SECONDS):
            while until.encode() not in heard:
                more = await self._reader.read(65536)
                if not more:
                    break
                heard += more
        return heard.decode()

    async def features(self, domain: str = DOMAIN) -> str:
        return await self.say(
            f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' "
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            "</stream:features>",
        )

    async def encrypt(self, authority: Path, version: ssl.TLSVersion | None = None) -> None:
        """Raises ssl.SSLError; with `version` only that one is spoken."""
        await self.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "proceed")
        context = ssl.create_default_context(cafile=authority)
        if version is not None:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or this side refuses the old ones
            context.minimum_version = context.maximum_version = version
        await self._writer.start_tls(context, server_hostname=DOMAIN)

    async def authenticate(self, pilot: str, password: str) -> str:
        """The server's answer to SASL PLAIN."""
        said = base64.b64encode(f"\0{pilot}\0{password}".encode()).decode()
        return await self.say(
            f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{said}</auth>", ">"
        )

    async def log_in(self, server: XmppServer, pilot: str) -> None:
        """Up to the features that offer to bind a resource."""
        await self.features()
        await self.encrypt(server.authority.file)
        await self.features()
        assert "success" in await self.authenticate(pilot, token(server, pilot))
        await self.features()


@asynccontextmanager
async def stranger(server: XmppServer) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.c2s_port)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def manager(server: XmppServer) -> AsyncIterator[Manager]:
    """A manager's component, connected."""
    component = Manager(server)
    component.stay()
    component.go()
    try:
        await component.wait_until("session_start", SECONDS)
        yield component
    finally:
        await component.leave()


@asynccontextmanager
async def pilot(server: XmppServer, name: str | None = None) -> AsyncIterator[Pilot]:
    """A pilot with a good token, logged in."""
    name = name or pilot_id()
    client = Pilot(server, name, token(server, name))
    try:
        assert await client.enter() == "session_start", server.said
        yield client
    finally:
        await client.leave()
