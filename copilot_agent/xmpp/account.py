"""An account of Co-Pilot 1 that stays logged in: the originals' messages over a client's stream."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.protocol.copilot1.envelope import Envelope, read_envelope, write_envelope
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.xmpp.client import CLIENT
from copilot_agent.xmpp.errors import XmppError
from copilot_agent.xmpp.room import Room
from copilot_agent.xmpp.stream import StanzaStream

log = logging.getLogger(__name__)

FIRST_SECONDS = 1.0
MOST_SECONDS = 60.0
STEADY_SECONDS = 60.0
"""A connection that lasted so long was a good one: the next wait is short again."""
PING = "{urn:xmpp:ping}ping"

Heard = Callable[[Envelope], Awaitable[None]]
"""Told of each message. It acknowledges itself (`ack_of`), once what it was told is safe."""


class Account:
    """Logs in, comes back with half jitter, joins a chat room. Presence of others is ignored.

    `room` is room@service/nick, or empty. That the room is closed to it hurts nothing else.
    """

    def __init__(
        self,
        stream: StanzaStream,
        heard: Heard,
        *,
        room: str = "",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._stream = stream
        self._heard = heard
        self._room = Room(room) if room else None
        self._chance = chance
        self._online = asyncio.Event()

    @property
    def online(self) -> bool:
        return self._online.is_set()

    async def wait_online(self) -> None:
        await self._online.wait()

    async def wait_joined(self) -> None:
        """Until it is in the room, so that what it says there is heard. Raises XmppError."""
        await self._online.wait()
        if self._room is not None:
            await self._room.joined()

    async def run(self) -> None:
        """Until cancelled; then it says good-bye."""
        wait, loop = FIRST_SECONDS, asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                try:
                    await self.converse()
                except XmppError as error:
                    log.warning("co-pilot 1: %s", error.message)
                self._online.clear()
                if loop.time() - began > STEADY_SECONDS:
                    wait = FIRST_SECONDS
                await asyncio.sleep(wait * (0.5 + self._chance() / 2))
                wait = min(2 * wait, MOST_SECONDS)
        finally:
            self._online.clear()
            with suppress(XmppError):
                await self._stream.close()

    async def send(self, envelope: Envelope) -> None:
        """Raises XmppError while not online, and StanzaError for what cannot be said."""
        await self._stream.send(write_envelope(envelope))

    async def converse(self) -> None:
        """One connection, until it ends. Raises XmppError."""
        await self._stream.open()
        await self._stream.send(Element(CLIENT + "presence"))
        if self._room is not None:
            await self._stream.send(self._room.joining())
        self._online.set()
        async for stanza in self._stream.stanzas():
            await self._take(stanza)

    async def _take(self, stanza: Element) -> None:
        if stanza.tag == CLIENT + "iq":
            await self._answer(stanza)
        elif stanza.tag == CLIENT + "presence" and self._room is not None:
            for word in self._room.heard(stanza):
                await self._stream.send(word)
        elif stanza.tag == CLIENT + "message":
            try:
                envelope = read_envelope(stanza)
            except StanzaError as error:
                log.warning("co-pilot 1: a message was refused: %s", error)
                return
            await self._heard(envelope)

    async def _answer(self, iq: Element) -> None:
        """Pings are answered, everything else is not known here."""
        if iq.get("type") not in ("get", "set"):
            return
        known = iq.find(PING) is not None
        answer = Element(CLIENT + "iq", {"type": "result" if known else "error"})
        for name, source in (("to", "from"), ("id", "id")):
            if value := iq.get(source):
                answer.set(name, value)
        if not known:
            error = SubElement(answer, CLIENT + "error", {"type": "cancel"})
            SubElement(error, "{urn:ietf:params:xml:ns:xmpp-stanzas}service-unavailable")
        await self._stream.send(answer)
