"""The component: keeps its connection to the XMPP server, and a talk for each pilot."""

import asyncio
import logging
import random
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from xml.etree.ElementTree import Element

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.xmpp import FRAME, RESOURCE
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.stream import StanzaStream
from job_manager_adapter.transports.xmpp.door import XmppDoor
from job_manager_adapter.transports.xmpp.stanzas import Writer
from job_manager_adapter.transports.xmpp.talk import Talk

log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.1, 2.0
"""Pauses between attempts, the first and the longest: the server is on this very computer, and
pilots that come back before us are sent away."""
CONFLICT_SECONDS = 60.0
"""For so long the name is left to whoever took it: it would only be taken back."""
SWEEP_SECONDS = 2.0
MOST_ID = 128
_CLIENT = "{jabber:client}"


class ComponentStream(StanzaStream, Protocol):
    async def send_text(self, stanza: str) -> None:
        """Raises XmppError."""


class PilotComponent:
    def __init__(
        self,
        stream: ComponentStream,
        name: str,
        domain: str,
        door: XmppDoor,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._stream = stream
        self._name = name
        self._pilots = re.compile(rf"(p-[0-9a-z]{{20}})@{re.escape(domain)}/{RESOURCE}")
        self._door = door
        self._chance = chance
        self._writer = Writer(name)
        self._talks: dict[str, Talk] = {}
        self.connected = False

    async def run(self) -> None:
        """Until cancelled; then the pilots are told, and look for another manager."""
        wait, most = AGAIN_SECONDS
        told = ""
        try:
            while True:
                try:
                    await self._serve()
                except XmppError as error:
                    if self.connected or error.message != told:
                        log.warning("component %s: %s%s", self._name, error, _remedy(error))
                        told = error.message
                    if self.connected:
                        wait = AGAIN_SECONDS[0]
                    if error.trouble is XmppTrouble.CONFLICT:
                        wait = CONFLICT_SECONDS
                self._lost()
                await asyncio.sleep(wait * (0.5 + self._chance() / 2))
                wait = min(2 * wait, most)
        finally:
            await self._say_goodbye()

    async def _serve(self) -> None:
        await self._stream.open()
        self.connected = True
        log.info("component %s is connected to the XMPP server", self._name)
        sweeping = asyncio.create_task(self._sweep())
        try:
            async for stanza in self._stream.stanzas():
                await self._take(stanza)
        finally:
            sweeping.cancel()

    def _lost(self) -> None:
        self.connected = False
        for talk in self._talks.values():
            talk.forget()
        self._talks.clear()

    async def _say_goodbye(self) -> None:
        error = CopilotError("the manager is stopping", code=ErrorCode.UNAVAILABLE)
        with suppress(XmppError):
            for talk in self._talks.values():
                if not talk.over:
                    await talk.end(error)
        self._lost()
        await self._stream.close()

    async def _take(self, stanza: Element) -> None:
        jid, kind = stanza.get("from", ""), stanza.get("type", "")
        found = self._pilots.fullmatch(jid)
        if found is None:
            return
        if stanza.tag == _CLIENT + "iq":
            await self._iq(found[1], jid, kind, stanza)
        elif stanza.tag == _CLIENT + "presence" and kind in ("unavailable", "error"):
            self._forget(jid)

    async def _iq(self, pilot: str, jid: str, kind: str, iq: Element) -> None:
        number = iq.get("id", "")
        if kind == "set" and 0 < len(number) <= MOST_ID:
            talk = self._talks.get(jid)
            if talk is None:
                talk = Talk(pilot, jid, self._door, self._writer, self._stream.send_text)
                self._talks[jid] = talk
            await talk.take(number, iq.find(FRAME))
        elif kind in ("result", "error"):
            if talk := self._talks.get(jid):
                talk.answered(number, kind == "error")
        elif len(number) <= MOST_ID:
            text = self._writer.refusal(jid, number, "service-unavailable")
            await self._stream.send_text(text)

    def _forget(self, jid: str) -> None:
        if talk := self._talks.pop(jid, None):
            talk.forget()

    async def _sweep(self) -> None:
        """Talks are tidied; those that are over go."""
        loop = asyncio.get_running_loop()
        with suppress(XmppError):
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                for talk in list(self._talks.values()):
                    await talk.tidy(loop.time())
                for jid in [jid for jid, talk in self._talks.items() if talk.over]:
                    del self._talks[jid]


def _remedy(error: XmppError) -> str:
    if error.trouble is XmppTrouble.LOGIN:
        return ": give both the same secret and name (xmpp.secret_file, xmpp.component)"
    if error.trouble is XmppTrouble.CONFLICT:
        return ": another manager has this name, give each its own (xmpp.component)"
    return "; trying again"
