"""One stream at a time: opened, read, written and closed by whoever holds it; no loops inside."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Protocol
from xml.etree.ElementTree import Element

from slixmpp.stanza import StreamError
from slixmpp.xmlstream.xmlstream import NotConnectedError, XMLStream

from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.guard import SLICE_BYTES, GuardedParser, Limits

logging.getLogger("slixmpp").setLevel(logging.CRITICAL)  # what matters is raised, and told once

MAX_WAITING = 256
"""Stanzas; while more wait, nothing is read from the server."""
OPEN_SECONDS = 20.0
CLOSE_SECONDS = 2.0
SILENT_SECONDS = 60


class StanzaStream(Protocol):
    """What both kinds of stream offer, and a test's double. Once over it may be opened again."""

    async def open(self) -> None:
        """One attempt. Raises XmppError."""

    async def send(self, stanza: Element) -> None:
        """An iq, message or presence, in the namespace jabber:client; `from` may be missing.

        Returns when it is handed to the system. Raises XmppError when the stream is over.
        """

    def stanzas(self) -> AsyncIterator[Element]:
        """Each iq, message and presence, in the namespace jabber:client.

        Ends by raising XmppError, or quietly after `close`.
        """

    async def close(self) -> None: ...


class Inbox:
    """What slixmpp's side hands over: stanzas, and why there come no more."""

    def __init__(self) -> None:
        self.trouble: XmppError | None = None
        """The first reason counts."""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.items: asyncio.Queue[Element | XmppError | None] = asyncio.Queue()

    def start(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def fail(self, error: XmppError) -> None:
        if self.trouble is None:
            self.trouble = error
            self.items.put_nowait(error)
            if not self.opened.done():
                self.opened.set_exception(error)

    @property
    def live(self) -> bool:
        return self.trouble is None and self.opened.done() and not self.opened.cancelled()


class Guarded(XMLStream):
    """Mixed in before a class of slixmpp: bounds, back pressure, and one attempt to connect."""

    bounds: Limits
    inbox: Inbox
    writable: asyncio.Event

    def guard(self, limits: Limits) -> None:
        """After slixmpp's own __init__."""
        self.bounds = limits
        self.renew()
        self.whitespace_keepalive = False
        self.max_redirects = -1  # a server does not send its clients elsewhere
        for name in ("IM", "IMError", "Presence", "Roster Update"):
            self.remove_handler(name)
        for event in ("session_start", "session_resumed"):
            self.add_event_handler(event, lambda _: self.start())
        self.add_event_handler("connection_failed", self._unreachable)
        self.add_event_handler("disconnected", self._ended)
        self.add_event_handler("stream_error", self._stream_error)

    def start(self) -> None:
        """slixmpp says that the stream is open."""
        self.inbox.start()

    def renew(self) -> None:
        """For another attempt."""
        self.inbox, self.writable = Inbox(), asyncio.Event()
        self.writable.set()
        self._held = False

    def take(self, stanza: Element) -> None:
        """One for the inbox; reading rests while too many wait there."""
        self.inbox.items.put_nowait(stanza)
        if not self._held and self.inbox.items.qsize() >= MAX_WAITING and self.transport:
            self._held = True
            self.transport.pause_reading()

    def taken(self) -> None:
        """One was taken out."""
        if self._held and self.inbox.items.qsize() <= MAX_WAITING // 2 and self.transport:
            self._held = False
            self.transport.resume_reading()

    def give_up(self, error: XmppError) -> None:
        self.inbox.fail(error)
        self.writable.set()
        self.cancel_connection_attempt()  # slixmpp would try for ever
        self.abort()

    # ----- asyncio and slixmpp

    def connection_made(self, transport: asyncio.BaseTransport, send_event: bool = True) -> None:
        if (wire := transport.get_extra_info("socket")) is not None:
            _notice_silence(wire)
        super().connection_made(transport, send_event)

    def abort(self) -> None:
        """slixmpp closes before it aborts, which breaks what TLS has torn down already."""
        if self.transport is not None:
            self.cancel_connection_attempt()
            self.transport.abort()

    def send_raw(self, data: str | bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise NotConnectedError
        super().send_raw(data)

    def init_parser(self) -> None:
        super().init_parser()
        self.parser = GuardedParser(self.bounds)  # type: ignore[assignment] # it uses no more of one

    def data_received(self, data: bytes | str) -> None:
        raw = data.encode() if isinstance(data, str) else data
        try:
            for start in range(0, len(raw), SLICE_BYTES):
                if self.parser is not None:
                    super().data_received(raw[start : start + SLICE_BYTES])
        except XmppError as error:
            self.give_up(error)
        except Exception as error:  # noqa: BLE001 - slixmpp's, over what comes when nobody asked for it
            message = f"the XMPP server says what makes no sense here: {error!r}"
            self.give_up(XmppError(XmppTrouble.LIMIT, message[:500]))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _unreachable(self, why: object) -> None:
        message = f"the XMPP server is not reachable: {why}"
        self.give_up(XmppError(XmppTrouble.UNREACHABLE, message))

    def _stream_error(self, error: StreamError) -> None:
        condition = str(error["condition"])
        trouble = XmppTrouble.CONFLICT if condition == "conflict" else XmppTrouble.UNREACHABLE
        text = f": {error['text']}" if error["text"] else ""
        message = f"the XMPP server ended the stream ({condition}{text})"
        self.inbox.fail(XmppError(trouble, message[:500]))

    def _ended(self, why: object) -> None:
        trouble = XmppTrouble.TLS if isinstance(why, ssl.SSLError) else XmppTrouble.UNREACHABLE
        text = f" ({why})" if why else ""
        self.inbox.fail(XmppError(trouble, f"the XMPP stream ended{text}"[:500]))
        self.writable.set()


def _notice_silence(wire: socket.socket) -> None:
    """A peer that is gone without a word ends the connection after a minute, not after hours."""
    if wire.family in (socket.AF_INET, socket.AF_INET6):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS // 2)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENT_SECONDS // 6)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)


class SlixmppStream:
    """Holds guarded streams of slixmpp, one after the other; what they have in common."""

    _xmpp: Guarded | None = None

    def _next(self) -> Guarded:
        """The one for the next attempt."""
        raise NotImplementedError

    def _address(self) -> tuple[str, int]:
        raise NotImplementedError

    async def open(self) -> None:
        """See `StanzaStream`."""
        xmpp = self._xmpp = self._next()
        xmpp.renew()
        xmpp.connect(*self._address())
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await xmpp.inbox.opened
        except TimeoutError:
            await self.close()
            message = f"the XMPP server does not answer within {OPEN_SECONDS:.0f} s"
            raise XmppError(XmppTrouble.UNREACHABLE, message) from None
        except BaseException:
            await self.close()
            raise

    async def stanzas(self) -> AsyncIterator[Element]:
        """See `StanzaStream`."""
        xmpp = self._current()
        while (item := await xmpp.inbox.items.get()) is not None:
            if isinstance(item, XmppError):
                raise item
            xmpp.taken()
            yield item

    async def close(self) -> None:
        """See `StanzaStream`."""
        if (xmpp := self._xmpp) is None:
            return
        live = xmpp.inbox.live
        xmpp.inbox.items.put_nowait(None)
        xmpp.inbox.fail(XmppError(XmppTrouble.UNREACHABLE, "the XMPP stream was closed"))
        xmpp.cancel_connection_attempt()
        if live and xmpp.transport is not None:
            await xmpp.disconnect(CLOSE_SECONDS)
        else:
            xmpp.abort()
        if xmpp._run_out_filters is not None:
            xmpp._run_out_filters.cancel()

    def _current(self) -> Guarded:
        if self._xmpp is None:
            raise XmppError(XmppTrouble.UNREACHABLE, "not connected")
        return self._xmpp

    async def _may_send(self) -> Guarded:
        """Waits until the system takes more. Raises XmppError."""
        xmpp = self._current()
        await xmpp.writable.wait()
        if not xmpp.inbox.live or xmpp.transport is None:
            raise xmpp.inbox.trouble or XmppError(XmppTrouble.UNREACHABLE, "not connected")
        return xmpp
