"""Elements from untrusted bytes, and bytes from messages of ours."""

from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from copilot_agent.protocol.copilot1.envelope import Envelope, write_envelope
from copilot_agent.protocol.copilot1.errors import refused
from copilot_agent.protocol.copilot1.tree import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    local_name,
)

MAX_STANZA = 65_536
"""Bytes."""


class _BoundedBuilder(TreeBuilder):
    """Stops at the first element too many, before it is built."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._elements = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            raise refused("stanza", f"nested more than {MAX_DEPTH} deep")
        if self._elements > MAX_ELEMENTS:
            raise refused("stanza", f"more than {MAX_ELEMENTS} elements")
        if len(attrs) > MAX_ATTRIBUTES:
            raise refused("stanza", f"more than {MAX_ATTRIBUTES} attributes of an element")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse_stanza(data: bytes) -> Element:
    """The one element of `data`. Raises StanzaError."""
    parser = XMLParser(target=_BoundedBuilder())  # noqa: S314 - DTDs are refused before it
    try:
        parser.feed(_restricted(data))
        element = parser.close()
    except ParseError as error:
        raise refused("stanza", "is not well-formed XML") from error
    if not isinstance(element, Element):
        raise refused("stanza", "is not well-formed XML")
    return element


def _restricted(data: bytes) -> str:
    """The XML that XMPP allows (RFC 6120, 11.1): UTF-8 without DTD, instructions and comments.

    "<" cannot stand inside of a value, so looking at the text is enough. Sections of CDATA, which
    nobody sends, go as well.
    """
    if len(data) > MAX_STANZA:
        raise refused("stanza", f"is longer than {MAX_STANZA} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise refused("stanza", "is not UTF-8") from error
    if "<!" in text or "<?" in text:
        raise refused("stanza", "holds a DTD, an instruction, a comment or CDATA")
    return text


def stanza_bytes(envelope: Envelope) -> bytes:
    """As it stands inside a stream of XMPP clients, without prefixes. Raises StanzaError."""
    data = "".join(_written(write_envelope(envelope))).encode()
    if len(data) > MAX_STANZA:
        raise refused("stanza", f"is longer than {MAX_STANZA} bytes")
    return data


_QUOTED = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "'": "&apos;",
        '"': "&quot;",
        "\t": "&#9;",
        "\n": "&#10;",
        "\r": "&#13;",
    }
)


def _written(element: Element) -> list[str]:
    name = local_name(element.tag)
    attributes = [f" {key}='{value.translate(_QUOTED)}'" for key, value in element.items()]
    inner = [part for child in element for part in _written(child)]
    end = [">", *inner, f"</{name}>"] if inner else ["/>"]
    return [f"<{name}", *attributes, *end]
