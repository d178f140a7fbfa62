"""Doubles of original programs that only talk: what they do with messages, faults included.

They follow the newer generation (2012): wrapped base64, the same id taken up to four times, nothing
but the message's own `noack` prevents an acknowledgement, and no look at who it was that spoke.
"""

import asyncio
import base64
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.xmpp.client import CLIENT, ClientStream, Login

SECONDS = 20.0
_OUTSIDE_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


def encoded(value: str) -> str:
    """As Perl does it: lines of 76 signs, each with its newline; nothing at all for nothing."""
    return "_BASE64:" + base64.encodebytes(value.encode()).decode()


def decoded(value: str) -> str:
    """As Perl does it: signs that are not base64, the colon among them, are passed over."""
    if not value.startswith("_BASE64"):
        return value
    signs = _OUTSIDE_BASE64.sub(b"", value.removeprefix("_BASE64").encode())
    return base64.b64decode(signs + b"=" * (-len(signs) % 4)).decode()


class OriginalComponent:
    """A component in its container. `plugins` get commands of the form Plugin:command."""

    def __init__(self, login: Login, room: str = "") -> None:
        self._login = login
        self._stream = ClientStream(login)
        self._room = room
        self._seen: Counter[str] = Counter()
        self.nick = str(uuid.uuid4())
        self.acknowledged: list[str] = []
        self.sent: list[str] = []
        self.joined = asyncio.Event()
        self.plugins: dict[str, Callable[[str, Mapping[str, str]], None]] = {}
        self._words: asyncio.Queue[Element] = asyncio.Queue()

    async def run(self) -> None:
        await self._stream.open()
        await self._stream.send(Element(CLIENT + "presence"))
        if self._room:
            await self._stream.send(self._joining())
        else:
            self.joined.set()
        speaking = asyncio.create_task(self._speak())
        try:
            async for stanza in self._stream.stanzas():
                self._hear(stanza)
        finally:
            speaking.cancel()

    async def _speak(self) -> None:
        while True:
            await self._stream.send(await self._words.get())

    def _joining(self) -> Element:
        seat = {"to": f"{self._room}/{self.nick}", "id": self.nick, "from": self._login.jid}
        presence = Element(CLIENT + "presence", seat)
        SubElement(presence, "{http://jabber.org/protocol/muc}x")
        return presence

    def _hear(self, stanza: Element) -> None:
        if stanza.tag == CLIENT + "presence" and stanza.get("from", "").endswith(self.nick):
            self.joined.set()
        if stanza.tag != CLIENT + "message" or stanza.get("type") == "error":
            return
        if ack := stanza.get("ack"):
            self.acknowledged.append(ack)
            return
        info = stanza.find(f"{CLIENT}body/{CLIENT}info")
        if info is not None and (number := stanza.get("id")):
            self._take(stanza, number, info)

    def _take(self, message: Element, number: str, info: Element) -> None:
        self._seen[number] += 1
        if message.get("noack") != "1" or self._seen[number] > 4:
            ack = {"from": message.get("to", ""), "to": message.get("from", ""), "ack": number}
            self._words.put_nowait(Element(CLIENT + "message", ack))
        if self._seen[number] > 4:
            return
        values = {key: decoded(value) for key, value in info.attrib.items()}
        plugin, colon, _ = values.get("command", "").partition(":")
        if not colon:
            self.command(message, values)
        elif plugin in self.plugins:
            self.plugins[plugin](message.get("from", ""), values)

    def command(self, message: Element, values: Mapping[str, str]) -> None:
        """For the component itself."""

    def say(self, to: str, values: Mapping[str, str], *, noack: bool = False) -> None:
        number = str(uuid.uuid4())
        message = Element(CLIENT + "message", {"from": self._login.jid, "to": to, "id": number})
        if noack:
            message.set("noack", "1")
        written = {key: encoded(value) for key, value in values.items()}
        SubElement(SubElement(message, CLIENT + "body"), CLIENT + "info", written)
        self._words.put_nowait(message)
        if not noack:
            self.sent.append(number)

    async def close(self) -> None:
        await self._stream.close()


STATUSES = {
    "systemLoad": "1min=2.38####5min=3.31####15min=2.82####",
    "diskUsage": "used%=30%####mountpoint=/####totalBlocks=258020M####used=30988####"
    "path=/dev/vda####available=72911####",
    "memoryUsage": "",
    "runningProcesses": "%cpu=0.1::::3.7####time=0:01::::0:00####%mem=0.0::::0.1####"
    "rss=12308::::44492####command=redis-server 127.0.0.1:16379::::perl####",
}
"""As recorded, the processes shortened."""


class OriginalHeartbeat(OriginalComponent):
    """With the Heartbeat plugin."""

    def __init__(self, login: Login, room: str) -> None:
        super().__init__(login, room)
        self.plugins["Heartbeat"] = self._heartbeat

    def _heartbeat(self, sender: str, values: Mapping[str, str]) -> None:
        if values["command"] == "Heartbeat:ping":
            self.say(sender, {"command": "pong"}, noack=True)
        elif values["command"] == "Heartbeat:getStatus":
            about = values.get("component", "")
            if (status := STATUSES.get(about[:1].lower() + about[1:])) is not None:
                named = "" if about == "runningProcesses" else about
                answer = {"command": "haveStatus", "component": named, "status": status}
                self.say(sender, answer)


class OriginalMonitor(OriginalComponent):
    """Counts events, keeps durations in minutes, and passes values on as they come."""

    def __init__(self, login: Login) -> None:
        super().__init__(login)
        self.messages: list[Element] = []
        """As they came."""
        self.counts: Counter[str] = Counter()
        self.minutes: defaultdict[str, list[float]] = defaultdict(list)
        self.values: defaultdict[str, list[str]] = defaultdict(list)
        self.heard = asyncio.Event()

    def command(self, message: Element, values: Mapping[str, str]) -> None:
        self.messages.append(message)
        path = f"{values.get('component')}.{values.get('event')}"
        match values["command"]:
            case "reportEvent":
                self.counts[path] += 1
            case "reportEventDuration":
                self.minutes[path].append(float(values["duration"]) / 60)
            case "reportEventValue":
                self.values[path].append(values["value"])
        self.heard.set()

    async def until(self, count: int) -> None:
        """That many messages have come."""
        async with asyncio.timeout(SECONDS):
            while len(self.messages) < count:
                self.heard.clear()
                await self.heard.wait()


Part = TypeVar("Part", bound=OriginalComponent)


@asynccontextmanager
async def playing(part: Part) -> AsyncIterator[Part]:
    """Logged in, and in its room."""
    running = asyncio.create_task(part.run())
    joined = asyncio.create_task(part.joined.wait())
    try:
        await asyncio.wait({running, joined}, return_when="FIRST_COMPLETED", timeout=SECONDS)
        if running.done():
            await running
        assert part.joined.is_set()
        yield part
    finally:
        for task in (running, joined):
            task.cancel()
        await asyncio.wait({running, joined})
        await part.close()
