"""Frames over XMPP: how they are cut into stanzas, and where a pilot finds its manager.

Both sides send IQs of type `set`, each with one piece of a frame:

    <iq type='set' to='manager-1.example.org' id='4f1c-7'>
      <frame xmlns='urn:cloud-copilot:frames:1' more='1'>{"version":1,…</frame>
    </iq>

A frame is JSON as over a WebSocket. Pieces come in order; the last one has no `more`. The ids of a
pilot's IQs are alike up to their last `-` within one connection, and differ between connections: a
frame of which one connection brought a part only is dropped.

Each IQ is answered, and the answer to a pilot's may carry the manager's next frame, so that one
exchange costs two stanzas. `<end code='…'>` instead of a frame says that the session is over, and
why.

What a manager says names in `attach` the IQ whose frame opened the session (the last piece's id):
a connection that is taken up again may bring stanzas from before, which the pilot drops.
"""

import re
from collections.abc import Iterator
from typing import Annotated
from xml.etree.ElementTree import Element, SubElement

from pydantic import StringConstraints

from copilot_agent.protocol.base import HostPort, Wire
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import MAX_FRAME_BYTES

NAMESPACE = "urn:cloud-copilot:frames:1"
FRAME, END = f"{{{NAMESPACE}}}frame", f"{{{NAMESPACE}}}end"
RESOURCE = "pilot"
PIECE_CHARACTERS = 12_000
"""A character takes 5 bytes at most, as `&amp;`: a stanza stays under 64 KiB."""
MAX_REASON = 500

Domain = Annotated[
    str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
]


class XmppAddress(Wire):
    """Where a pilot logs in, as `pilot id@domain/pilot` with its access token as password."""

    server: HostPort
    """Where the XMPP server listens for clients."""
    domain: Domain
    """Of the pilots' accounts, which the server's certificate must prove."""
    component: Domain
    """The manager's address."""


class PieceError(ValueError):
    """What came is no piece of a frame."""


_NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff\ud800-\udfff]")


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Of a frame's JSON: a part, and whether more come.

    What XML cannot hold stands inside of JSON's strings, where it may be escaped.
    """
    text = _NOT_IN_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    for start in range(0, len(text), PIECE_CHARACTERS):
        end = start + PIECE_CHARACTERS
        yield text[start:end], end < len(text)


def add_piece(iq: Element, part: str, more: bool, attach: str = "") -> Element:
    """The IQ with the piece in it."""
    attributes = {"attach": attach} if attach else {}
    if more:
        attributes["more"] = "1"
    SubElement(iq, FRAME, attributes).text = part
    return iq


class Assembler:
    """Puts the pieces of one direction together."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._bytes = 0

    def add(self, piece: Element) -> str | None:
        """The frame's text with its last piece. Raises PieceError."""
        part = piece.text or ""
        if len(piece) or len(part) > PIECE_CHARACTERS:
            raise PieceError("a piece of a frame is text of bounded length")
        self._parts.append(part)
        self._bytes += len(part.encode())
        if self._bytes > MAX_FRAME_BYTES:
            self._parts, self._bytes = [], 0
            raise PieceError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")
        if piece.get("more") == "1":
            return None
        text, self._parts, self._bytes = "".join(self._parts), [], 0
        return text

    @property
    def waiting(self) -> bool:
        """For the rest of a frame."""
        return bool(self._parts)


def end_element(code: ErrorCode, reason: str, attach: str = "") -> Element:
    element = Element(END, {"code": code.value})
    if attach:
        element.set("attach", attach)
    element.text = _NOT_IN_XML.sub(" ", reason[:MAX_REASON])
    return element


def read_end(element: Element) -> tuple[ErrorCode, str]:
    """An unknown code counts as `unavailable`: then the pilot comes back."""
    try:
        code = ErrorCode(element.get("code", ""))
    except ValueError:
        code = ErrorCode.UNAVAILABLE
    return code, (element.text or "")[:MAX_REASON]
