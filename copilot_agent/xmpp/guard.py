"""Bounds of what comes in, checked before slixmpp makes anything of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from xml.etree.ElementTree import Element, XMLPullParser

from copilot_agent.xmpp.errors import XmppError, XmppTrouble

SLICE_BYTES = 4096
"""Fed at once. A stanza may exceed its bound by as much before it is noticed."""


@dataclass(frozen=True)
class Limits:
    """Of one stanza."""

    stanza_bytes: int = 64 * 1024
    depth: int = 16
    elements: int = 1024


class GuardedParser:
    """Of one stream: what slixmpp wants of a parser (`feed`, `read_events`), with bounds.

    XMPP knows no DTD, instruction, comment or CDATA (RFC 6120, 11.1). "<" cannot stand inside of a
    value, so looking at the bytes is enough. Raises XmppError with LIMIT.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
        self._tail = self._begun = b""
        self._opened = False
        self._depth = self._elements = self._bytes = 0

    def feed(self, data: bytes) -> None:
        """At most `SLICE_BYTES`, followed by `read_events`."""
        self._restrict(data)
        self._bytes += len(data)
        if self._bytes > self._limits.stanza_bytes + SLICE_BYTES:
            raise _over(f"a stanza is longer than {self._limits.stanza_bytes} bytes")
        self._parser.feed(self._whole_tags(data))

    def _whole_tags(self, data: bytes) -> bytes:
        """expat from 2.6 on (and Debian's 2.5) puts off a tag that it has seen a part of until as
        much again has come: the last stanza before a silence might lie there for long."""
        data = self._begun + data
        last = data.rfind(b"<")
        end = last if last > data.rfind(b">") else len(data)
        self._begun = data[end:]
        return data[:end]

    def _restrict(self, data: bytes) -> None:
        seen = self._tail + data
        if not self._opened:  # the declaration before the stream's head is allowed
            seen = seen.lstrip()
            if seen.startswith(b"<?xml ") or b"<?xml ".startswith(seen[:6]):
                seen = seen.partition(b"?>")[2]
        if b"<!" in seen or b"<?" in seen:
            raise _over("a DTD, an instruction, a comment or CDATA came in")
        self._tail = data[-1:] if self._opened else (self._tail + data)[-512:]

    def read_events(self) -> Iterator[tuple[str, Element]]:
        for kind, element in cast("Iterator[tuple[str, Element]]", self._parser.read_events()):
            if kind == "start":
                self._begin()
            else:
                self._end()
            yield kind, element

    def _begin(self) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth == 1:
            self._opened, self._tail = True, b""
        if self._depth > self._limits.depth + 1:
            raise _over(f"a stanza is nested more than {self._limits.depth} deep")
        if self._elements > self._limits.elements + 1:
            raise _over(f"a stanza has more than {self._limits.elements} elements")

    def _end(self) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._elements = self._bytes = 0


def _over(message: str) -> XmppError:
    return XmppError(XmppTrouble.LIMIT, f"the XMPP server is not trusted any more: {message}")
