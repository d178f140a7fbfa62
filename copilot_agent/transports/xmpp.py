"""The conversation over XMPP: IQs to the manager's component, see protocol.xmpp."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.protocol.xmpp import (
    END,
    FRAME,
    Assembler,
    PieceError,
    XmppAddress,
    add_piece,
    pieces,
    read_end,
)
from copilot_agent.transports.base import NotOfferedError, TransportError
from copilot_agent.transports.parsing import frame_text, parse_frame
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.stream import StanzaStream

ANSWER_SECONDS = 60.0
"""Without an answer to something that was sent: the way to the manager is broken."""
BUSY_SECONDS = 5.0
_CLIENT = "{jabber:client}"
_IQ = _CLIENT + "iq"
_CONDITIONS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
_TROUBLES = {
    ErrorCode.SESSION_SUPERSEDED: TransportTrouble.SUPERSEDED,
    ErrorCode.UNAUTHENTICATED: TransportTrouble.TOKEN,
    ErrorCode.TOKEN_EXPIRED: TransportTrouble.TOKEN,
    ErrorCode.PILOT_RETIRED: TransportTrouble.RETIRED,
    ErrorCode.HOST_BANNED: TransportTrouble.RETIRED,
    ErrorCode.INVALID_REQUEST: TransportTrouble.MALFORMED,
    ErrorCode.PROTOCOL_VERSION: TransportTrouble.MALFORMED,
}
_STREAM_TROUBLES = {
    XmppTrouble.LOGIN: TransportTrouble.TOKEN,
    XmppTrouble.CONFLICT: TransportTrouble.SUPERSEDED,
}


class Account(Protocol):
    """What enrolment told."""

    @property
    def pilot(self) -> str: ...

    @property
    def xmpp(self) -> XmppAddress | None: ...


Streams = Callable[[str, XmppAddress, str], StanzaStream]
"""A stream for a pilot, its manager's address and an access token; not yet open."""


class XmppTransport:
    """`account` is asked at each connect."""

    def __init__(self, account: Callable[[], Account | None], streams: Streams) -> None:
        self._account = account
        self._streams = streams
        self._stream: StanzaStream | None = None
        self._component = ""
        self._numbers, self._nonce = itertools.count(1), ""
        self._attach = ""
        """The IQ that opened the session."""
        self._asked: dict[str, float] = {}
        """IQs that wait for their answer, oldest first, and since when."""
        self._assembler = Assembler()
        self._frames: asyncio.Queue[ManagerFrame | TransportError | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    async def connect(self, token: str) -> None:
        """See `Transport`; NotOfferedError where the manager has told no address."""
        await self.close()
        account = self._account()
        if account is None or account.xmpp is None:
            raise NotOfferedError("the manager offers no XMPP")
        stream = self._streams(account.pilot, account.xmpp, token)
        try:
            await stream.open()
        except XmppError as error:
            raise _trouble(error) from error
        self._stream, self._component = stream, account.xmpp.component
        self._assembler, self._frames = Assembler(), asyncio.Queue()
        self._attach, self._nonce = "", os.urandom(6).hex()
        self._reader = asyncio.create_task(self._read(stream, self._frames))

    async def send(self, frame: PilotFrame) -> None:
        stream = self._connected()
        for part, more in pieces(frame_text(frame)):
            number = f"{self._nonce}-{next(self._numbers)}"
            iq = self._iq("set", number)
            self._expect(number)
            if frame.session is None:
                self._attach = number
            try:
                await stream.send(add_piece(iq, part, more))
            except XmppError as error:
                raise _trouble(error) from error

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        self._connected()
        frames = self._frames
        while (item := await frames.get()) is not None:
            if isinstance(item, TransportError):
                raise item
            yield item

    def use_token(self, token: str) -> None:
        """The stream was opened with the token of its time; the next one takes the new token."""

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        reader, self._reader = self._reader, None
        self._asked.clear()
        self._patience()
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        if stream is not None:
            await stream.close()
        self._frames.put_nowait(None)

    # ----- what comes in

    async def _read(
        self, stream: StanzaStream, frames: "asyncio.Queue[ManagerFrame | TransportError | None]"
    ) -> None:
        try:
            async for stanza in stream.stanzas():
                frame = await self._iq_came(stream, stanza) if stanza.tag == _IQ else None
                if frame is not None:
                    frames.put_nowait(frame)
        except XmppError as error:
            frames.put_nowait(_trouble(error))
        except PieceError as error:
            frames.put_nowait(TransportError(TransportTrouble.MALFORMED, str(error)))
        except TransportError as error:
            frames.put_nowait(error)

    async def _iq_came(self, stream: StanzaStream, iq: Element) -> ManagerFrame | None:
        kind, number = iq.get("type"), iq.get("id", "")
        if kind in ("result", "error"):
            if self._asked.pop(number, None) is None:
                return None
            self._patience()
            if kind == "error":
                raise _refusal(iq)
        elif iq.get("from") != self._component or kind != "set":
            await stream.send(_unknown(iq))
            return None
        else:
            await stream.send(self._iq("result", number))
        content = next(iter(iq), None)
        if content is None or content.get("attach") != self._attach:
            return None
        return self._said(content)

    def _said(self, content: Element) -> ManagerFrame | None:
        if content.tag == END:
            raise _ended(content)
        text = self._assembler.add(content) if content.tag == FRAME else None
        return None if text is None else parse_frame(text)

    # ----- answers that are due

    def _expect(self, number: str) -> None:
        self._asked[number] = asyncio.get_running_loop().time()
        if self._watch is None:
            self._patience()

    def _patience(self) -> None:
        """Until the oldest answer that is due is overdue."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._asked:
            oldest = next(iter(self._asked.values()))
            loop = asyncio.get_running_loop()
            self._watch = loop.call_at(oldest + ANSWER_SECONDS, self._silent, self._frames)

    def _silent(self, frames: "asyncio.Queue[ManagerFrame | TransportError | None]") -> None:
        self._watch = None
        message = f"no answer from the manager for {ANSWER_SECONDS:.0f} s"
        frames.put_nowait(TransportError(TransportTrouble.UNREACHABLE, message))

    def _iq(self, kind: str, number: str) -> Element:
        return Element(_IQ, {"type": kind, "to": self._component, "id": number})

    def _connected(self) -> StanzaStream:
        if self._stream is None:
            raise TransportError(TransportTrouble.UNREACHABLE, "not connected")
        return self._stream


def _trouble(error: XmppError) -> TransportError:
    trouble = _STREAM_TROUBLES.get(error.trouble, TransportTrouble.UNREACHABLE)
    return TransportError(trouble, error.message)


def _ended(end: Element) -> TransportError:
    code, reason = read_end(end)
    trouble = _TROUBLES.get(code, TransportTrouble.UNREACHABLE)
    return TransportError(trouble, f"{code.value}: {reason}")


def _refusal(iq: Element) -> TransportError:
    """Of something that we sent: by the manager, or by the server in its place."""
    error = iq.find(_CLIENT + "error")
    if error is None:
        return TransportError(TransportTrouble.UNREACHABLE, "the manager refused without a reason")
    if (end := error.find(END)) is not None:
        return _ended(end)
    found = [child.tag.removeprefix(_CONDITIONS) for child in error if _CONDITIONS in child.tag]
    wait = BUSY_SECONDS if "resource-constraint" in found else 0.0
    return TransportError(
        TransportTrouble.UNREACHABLE,
        f"the manager is not reachable by XMPP ({', '.join(found)[:200]})",
        wait_seconds=wait,
    )


def _unknown(iq: Element) -> Element:
    """The answer to what is no business of a pilot's."""
    answer = Element(_IQ, {"type": "error"})
    for name, source in (("to", "from"), ("id", "id")):
        if value := iq.get(source):
            answer.set(name, value)
    error = SubElement(answer, _CLIENT + "error", {"type": "cancel"})
    SubElement(error, _CONDITIONS + "service-unavailable")
    return answer
