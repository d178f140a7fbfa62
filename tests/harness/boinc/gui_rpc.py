"""The client's remote control: XML over TCP, each message ended by a byte 3."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress

from tests.harness.boinc.xml import Element, line, parse, text_of

_END = b"\x03"
_LARGEST_REPLY = 1 << 24


class GuiRpcError(Exception):
    """The client said no."""


class GuiRpc:
    """One connection, made when it is needed and again after it broke."""

    def __init__(self, port: int, password: str) -> None:
        self._port = port
        self._password = password
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, request: str) -> Element:
        """`request`: `<get_results/>`, say. Raises GuiRpcError, or OSError without a client."""
        async with self._lock:
            if self._streams is None:
                await self._connect()
            reply = await self._exchange(request)
        if reply.tag == "unauthorized" or reply.find("unauthorized") is not None:
            raise GuiRpcError("the client does not accept the password")
        if (error := text_of(reply, "error")) or (error := _own_text(reply, "error")):
            raise GuiRpcError(f"{request}: {error}")
        return reply

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connect(self) -> None:
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LARGEST_REPLY)
        nonce = _own_text(await self._exchange("<auth1/>"), "nonce")
        digest = hashlib.md5((nonce + self._password).encode(), usedforsecurity=False).hexdigest()
        reply = await self._exchange(f"<auth2>\n{line('nonce_hash', digest)}</auth2>")
        if reply.tag != "authorized" and reply.find("authorized") is None:
            await self.close()
            raise GuiRpcError("the client does not accept the password")

    async def _exchange(self, request: str) -> Element:
        if self._streams is None:
            raise GuiRpcError("not connected")
        reader, writer = self._streams
        message = f"<boinc_gui_rpc_request>\n{request}\n</boinc_gui_rpc_request>\n"
        try:
            writer.write(message.encode() + _END)
            await writer.drain()
            reply = await reader.readuntil(_END)
        except (OSError, asyncio.IncompleteReadError) as broken:
            await self.close()
            raise ConnectionResetError("the client is gone") from broken
        root = parse(reply[: -len(_END)].decode(errors="replace"))
        return root[0] if len(root) == 1 else root


def _own_text(element: Element, name: str) -> str:
    """Of the element itself, or of its child, if it has that name."""
    return (element.text or "").strip() if element.tag == name else text_of(element, name)
