"""XMPP as a simulated pilot needs it: a login, IQs out, frames in, and nothing parsed twice."""

import asyncio
import base64
import html
import itertools
import re
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from copilot_agent.protocol.base import split_host_port

_IQ = re.compile(rb"<iq\b((?:[^>'\"]|'[^']*'|\"[^\"]*\")*?)(/>|>(.*?)</iq>)", re.DOTALL)
_FRAME = re.compile(rb"<frame\b([^>]*)>(.*?)</frame>", re.DOTALL)
_ATTRIBUTE = re.compile(rb"\b(id|type)=['\"]([^'\"]*)['\"]")
_SPECIAL = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@lru_cache
def _context(authority: str) -> ssl.SSLContext:
    """One for all: TLS sessions of the same server."""
    return ssl.create_default_context(cafile=authority)


class XmppWire:
    """One account's stream."""

    def __init__(
        self, pilot: str, token: str, address: dict[str, Any], text: Callable[[bytes], None],
        closed: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._pilot = pilot
        self._token = token
        self._domain = address["domain"]
        self._component = address["component"]
        self._server = split_host_port(address["server"])
        self._text = text
        self._closed = closed
        self._numbers = itertools.count(1)
        self._parts: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self, authority: str) -> None:
        """Logs in."""
        reader, writer = await asyncio.open_connection(*self._server)
        self._writer = writer
        await self._stream(reader)
        await self._say(reader, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", b"<proceed")
        await writer.start_tls(_context(authority), server_hostname=self._domain)
        await self._stream(reader)
        plain = base64.b64encode(f"\0{self._pilot}\0{self._token}".encode()).decode()
        sasl = "urn:ietf:params:xml:ns:xmpp-sasl"
        await self._say(
            reader, f"<auth xmlns='{sasl}' mechanism='PLAIN'>{plain}</auth>", b"<success"
        )
        await self._stream(reader)
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>pilot</resource></bind>"
        await self._say(reader, f"<iq type='set' id='bind'>{bind}</iq>", b"</iq>")
        self._reading = asyncio.create_task(self._read(reader))

    async def _stream(self, reader: asyncio.StreamReader) -> None:
        head = (
            f"<stream:stream to='{self._domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        await self._say(reader, head, b"</stream:features>")

    async def _say(self, reader: asyncio.StreamReader, text: str, until: bytes) -> None:
        assert self._writer is not None
        self._writer.write(text.encode())
        heard = b""
        async with asyncio.timeout(60):
            while until not in heard:
                more = await reader.read(65536)
                if not more or b"<failure" in heard:
                    raise ConnectionError(f"no login: {heard!r}")
                heard += more

    async def _read(self, reader: asyncio.StreamReader) -> None:
        buffer = b""
        while data := await reader.read(1 << 18):
            buffer += data
            end = 0
            for found in _IQ.finditer(buffer):
                end = found.end()
                self._heard(dict(_ATTRIBUTE.findall(found[1])), found[3] or b"")
            buffer = buffer[end:]
        self._closed(0)

    def _heard(self, attributes: dict[bytes, bytes], content: bytes) -> None:
        if attributes.get(b"type") == b"set":
            number = attributes[b"id"].decode()
            self._write(f"<iq type='result' to='{self._component}' id='{number}'/>")
        if attributes.get(b"type") == b"error":
            self._closed(1)
        for more, part in _FRAME.findall(content):
            self._parts.append(part)
            if b"more=" not in more:
                text, self._parts = b"".join(self._parts), []
                self._text(html.unescape(text.decode()).encode())

    def send(self, text: bytes) -> None:
        part = text.decode().translate(_SPECIAL)
        self._write(
            f"<iq type='set' to='{self._component}' id='{next(self._numbers)}'>"
            f"<frame xmlns='urn:cloud-copilot:frames:1'>{part}</frame></iq>"
        )

    def _write(self, text: str) -> None:
        if self._writer is not None:
            self._writer.write(text.encode())

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
