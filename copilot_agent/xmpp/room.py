"""A seat in a chat room (XEP-0045): from joining to the presence that says "you are in"."""

import asyncio
import logging
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.xmpp.client import CLIENT
from copilot_agent.xmpp.errors import XmppError, XmppTrouble

log = logging.getLogger(__name__)

_MUC = "{http://jabber.org/protocol/muc}"
_USER = "{http://jabber.org/protocol/muc#user}"
_OWNER = "{http://jabber.org/protocol/muc#owner}"
_FORM = "{jabber:x:data}x"
_STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
_SELF, _NEW = "110", "201"
"""Codes: this presence is one's own, and the room was made by coming."""
MAX_NICKS = 5


class Room:
    """`seat` is room@service/nick. Who has the nick already may be oneself, on a dead connection:

    then it is nick-2 and so on.
    """

    def __init__(self, seat: str) -> None:
        self._seat = seat
        self._room = seat.partition("/")[0]
        self._nicks = 1
        """Tried since the last `joining`."""
        self._waiting: asyncio.Future[None] | None = None

    def joining(self) -> Element:
        """The presence to be sent; no old messages are wanted."""
        if self._waiting is None or self._waiting.done():  # or a connection broke meanwhile
            self._waiting = asyncio.get_running_loop().create_future()
        self._nicks = 1
        return self._presence(self._seat)

    def _presence(self, seat: str) -> Element:
        presence = Element(CLIENT + "presence", {"to": seat})
        SubElement(SubElement(presence, _MUC + "x"), _MUC + "history", {"maxstanzas": "0"})
        return presence

    @property
    def is_in(self) -> bool:
        """Whether the room took the last `joining`."""
        seat = self._waiting
        return seat is not None and seat.done() and seat.exception() is None

    async def joined(self) -> None:
        """Waits for the room's answer to the last `joining`. Raises XmppError for a refusal."""
        if self._waiting is not None:
            await asyncio.shield(self._waiting)

    def heard(self, presence: Element) -> Iterator[Element]:
        """What is to be sent upon it; presence of others says nothing."""
        if presence.get("from", "").partition("/")[0] != self._room or self._waiting is None:
            return
        if presence.get("type") == "error":
            yield from self._refused(_why(presence))
            return
        codes = {status.get("code") for status in presence.iter(_USER + "status")}
        if _SELF not in codes or presence.get("type"):
            return
        if _NEW in codes:
            yield self._unlocked()
        if not self._waiting.done():
            self._waiting.set_result(None)

    def _refused(self, why: str) -> Iterator[Element]:
        if why == "conflict" and self._nicks < MAX_NICKS:
            self._nicks += 1
            yield self._presence(f"{self._seat}-{self._nicks}")
            return
        error = XmppError(XmppTrouble.LOGIN, f"the chat room {self._room} is closed to us: {why}")
        log.warning("co-pilot 1: %s", error.message)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
            self._waiting.exception()  # nobody need be waiting for it

    def _unlocked(self) -> Element:
        """Many servers let nobody else into a new room before its maker has accepted its form."""
        iq = Element(CLIENT + "iq", {"type": "set", "to": self._room, "id": "room"})
        SubElement(SubElement(iq, _OWNER + "query"), _FORM, {"type": "submit"})
        return iq


def _why(presence: Element) -> str:
    """The condition's name, such as conflict for a nick that is taken."""
    names = (child.tag.removeprefix(_STANZAS) for child in presence.iter() if _STANZAS in child.tag)
    return next((name for name in names if name != "text"), "no reason given")[:64]
