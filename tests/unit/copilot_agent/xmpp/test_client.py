"""A client's stream, with a server that says what it should not."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from xml.etree.ElementTree import Element

import pytest

from copilot_agent.xmpp.client import CLIENT, MOST_UNACKNOWLEDGED, ClientStream, Login
from copilot_agent.xmpp.errors import XmppError, XmppTrouble

PILOT, PASSWORD = "p-01m8mkqge5gt36450bxj@pilots.test", "the-token"
HEAD = (
    "<stream:stream xmlns='jabber:client' version='1.0' from='pilots.test' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
BIND = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
SM = "urn:xmpp:sm:3"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"


def features(content: str) -> str:
    return f"<stream:features>{content}</stream:features>"


class Server:
    """Says the whole script at once, and then binds whoever asks for it."""

    def __init__(self, script: str) -> None:
        self._script = script
        self.heard = b""
        self.port = 0
        self.left = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((HEAD + self._script).encode())
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                self._hear(data, writer)
        writer.transport.abort()
        self.left.set()

    def _hear(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.heard += data
        if b"xmpp-bind" in data:
            number = data.partition(b'id="')[2].partition(b'"')[0].decode()
            jid = f"{BIND}<jid>{PILOT}/pilot</jid></bind>"
            writer.write(f"<iq type='result' id='{number}'>{jid}</iq>".encode())
        if b"<enable" in data:
            writer.write(f"<enabled xmlns='{SM}' id='1' resume='true'/>".encode())


@asynccontextmanager
async def opening(script: str, safe: bool = True) -> AsyncIterator[tuple[ClientStream, Server]]:
    server = Server(script)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    tls = ssl.create_default_context() if safe else None
    stream = ClientStream(
        Login(PILOT, PASSWORD, "pilot", "127.0.0.1", server.port, tls, resume=True)
    )
    try:
        yield stream, server
    finally:
        await stream.close()
        await server.left.wait()
        listening.close()


@pytest.mark.parametrize(
    "script",
    [
        features(f"{BIND}</bind>"),
        features(f"<mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms>"),
        f"<resumed xmlns='{SM}' h='0' previd='x'/>",
    ],
    ids=["neither TLS nor login", "no TLS", "a stream that goes on"],
)
async def test_without_tls_nothing_is_opened(script: str) -> None:
    async with opening(script) as (stream, server):
        with pytest.raises(XmppError) as caught:
            await stream.open()
        assert caught.value.trouble is XmppTrouble.TLS
    assert b"<auth" not in server.heard


async def test_an_answer_without_a_question_ends_the_stream() -> None:
    async with opening(f"<success xmlns='{SASL}'/>") as (stream, _):
        with pytest.raises(XmppError, match="makes no sense"):
            await stream.open()


async def test_what_is_never_acknowledged_is_not_kept_for_ever() -> None:
    async with opening(features(f"{BIND}</bind><sm xmlns='{SM}'/>"), safe=False) as (stream, _):
        await stream.open()
        with pytest.raises(XmppError, match="acknowledges nothing"):
            for number in range(MOST_UNACKNOWLEDGED + 50):
                await stream.send(Element(CLIENT + "iq", {"type": "result", "id": str(number)}))
                await asyncio.sleep(0)
