"""A double of the original's generic job manager, which cannot run here: its wire, timers, quirks.

It follows what was measured of the Perl program: wrapped base64 with a newline inside of the
attributes, acknowledgements without a body, `sleep` within the cooldown of an agent's last request
and in the race of two instances for one broadcast, a queue that gives the newest job first and
forgets what it has given, an output directory that anybody may write, jobDone taken from anybody.
Its faults can be ordered. It shares no code of the codec with ours, but for XMPP's stream.
"""

import asyncio
import base64
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.xmpp.client import ClientStream
from copilot_agent.xmpp.errors import XmppError
from tests.harness.chirp import ChirpServer
from tests.harness.copilot1_server import Copilot1Server

CLIENT = "{jabber:client}"
MANAGERS = "jm"
Hash = dict[str, Any]
"""As in Perl: text, or another one, by names."""


def encoded(text: str) -> str:
    """As Perl's MIME::Base64 has it: lines of 76 characters, a newline at the end."""
    return "_BASE64:" + base64.encodebytes(text.encode()).decode()


def decoded(raw: str) -> str:
    """Strips `_BASE64`, and skips all that is not of the alphabet; bare text is taken as it is."""
    if not raw.startswith("_BASE64"):
        return raw
    letters = re.sub("[^A-Za-z0-9+/]", "", raw[7:])
    data: bytes = base64.b64decode(letters + "=" * (-len(letters) % 4))
    return data.decode()


def write(parent: Element, name: str, values: Hash) -> None:
    element = SubElement(parent, CLIENT + name)
    for key, value in values.items():
        if isinstance(value, dict):
            write(element, key, value)
        else:
            element.set(key, encoded(value))


def read(element: Element) -> Hash:
    values: Hash = {key: decoded(raw) for key, raw in element.items()}
    for child in element:
        values[child.tag.rpartition("}")[2]] = read(child)
    return values


@dataclass
class Redis:
    """What all instances of a manager share, and what outlives them."""

    waiting: list[str] = field(default_factory=list)
    descriptions: dict[str, Hash] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def submit(self, **job: Any) -> str:
        """As copilot-job-submit: LPUSH, so the newest comes first."""
        name = str(job.pop("id", uuid.uuid4()))
        self.descriptions[name] = {"id": name, **job}
        self.waiting.insert(0, name)
        return name


@dataclass(frozen=True)
class Done:
    """One jobDone."""

    info: Hash
    id: str
    archive: Path | None
    """Where it was moved to, if it was there."""


@dataclass
class OriginalManager:
    server: Copilot1Server
    redis: Redis
    chirp: ChirpServer
    resource: str = "alpha"
    account: str = MANAGERS
    generation: str = "A"
    cooldown: float = 60.0
    require_file: str = ""
    keeps_jobs: bool = False
    """Never answers getJob."""
    loses_done: int = 0
    """So many jobDone do not arrive."""
    loses_acks: int = 0
    """So many acknowledgements of jobDone do not arrive."""
    dies_after: str = ""
    """Ends without a good-bye when it has said this."""
    heard: list[tuple[float, str, Hash]] = field(default_factory=list)
    """When, which command, what."""
    senders: list[str] = field(default_factory=list)
    """Of what was heard."""
    said: Counter[str] = field(default_factory=Counter)
    acked: Counter[str] = field(default_factory=Counter)
    """By the agents; our ids."""
    done: list[Done] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: Counter[str] = field(default_factory=Counter)
    _sent: set[str] = field(default_factory=set)
    _stream: ClientStream | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def jid(self) -> str:
        return f"{self.account}@copilot.test"

    async def start(self) -> None:
        login = await self.server.login(self.account, self.resource)
        self._stream = ClientStream(login)
        await self._stream.open()
        await self._stream.send(Element(CLIENT + "presence"))
        self._task = asyncio.create_task(self._run(self._stream))

    async def stop(self) -> None:
        if self._task is not None and self._stream is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self._stream.close()
            self._task = None

    async def until(
        self, condition: Callable[["OriginalManager"], bool], seconds: float = 20
    ) -> None:
        """Waits until what has happened to it is what is waited for."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self.news.clear()
                await self.news.wait()

    def times(self, command: str) -> list[float]:
        return [at for at, said, _ in self.heard if said == command]

    # ----- the wire

    async def _run(self, stream: ClientStream) -> None:
        with suppress(XmppError):
            async for stanza in stream.stanzas():
                if stanza.tag == CLIENT + "message" and stanza.get("type") != "error":
                    await self._message(stanza)
                    self.news.set()

    async def _message(self, stanza: Element) -> None:
        sender, ident = stanza.get("from", ""), stanza.get("id", "")
        if ack := stanza.get("ack"):
            self.acked[ack] += 1
            return
        info = stanza.find(f"{CLIENT}body/{CLIENT}info")
        if info is None or not ident:
            return  # as the original: without a word
        values = read(info)
        command = values.get("command", "")
        if command == "jobDone" and self.loses_done:
            self.loses_done -= 1
            return
        self._seen[ident] += 1
        first = self._seen[ident] == 1
        if self.generation == "B" or first:
            await self._ack(stanza, command)
        if first or (self.generation == "B" and self._seen[ident] <= 4):
            self.heard.append((asyncio.get_running_loop().time(), command, values))
            self.senders.append(sender)
            await self._hear(sender, command, values, ident)

    async def _ack(self, stanza: Element, command: str) -> None:
        if command == "jobDone" and self.loses_acks:
            self.loses_acks -= 1
            return
        ack = {"from": self.jid, "to": stanza.get("from", ""), "ack": stanza.get("id", "")}
        await self._send(Element(CLIENT + "message", ack))

    async def say(self, to: str, info: Hash) -> str:
        """Its id."""
        ident = str(uuid.uuid4())
        message = Element(CLIENT + "message", {"from": self.jid, "to": to, "id": ident})
        write(SubElement(message, CLIENT + "body"), "info", info)
        await self._send(message)
        self.said[info["command"]] += 1
        if self.dies_after and info["command"] == self.dies_after and self._stream is not None:
            self._stream._current().abort()
        return ident

    async def _send(self, message: Element) -> None:
        assert self._stream is not None
        with suppress(XmppError):
            await self._stream.send(message)

    # ----- what it does

    async def _hear(self, sender: str, command: str, info: Hash, ident: str) -> None:
        match command:
            case "want_getJob":
                await self._want_job(sender)
            case "getJob":
                await self._get_job(sender)
            case "want_getJobOutputDir":
                await self.say(sender, {"command": "have_getJobOutputDir"})
            case "getJobOutputDir":
                await self._get_output_dir(sender, info["jobID"])
            case "jobDone":
                self._job_done(info, ident)

    async def _want_job(self, sender: str) -> None:
        agent, now = sender.partition("@")[0], time.time()
        if now - self.redis.seen.get(agent, 0.0) < self.cooldown:
            await self.say(sender, {"command": "sleep"})
            return
        self.redis.seen[agent] = now
        if self.redis.waiting:
            more = {"requireFile": self.require_file} if self.require_file else {}
            await self.say(sender, {"command": "have_getJob", **more})

    async def _get_job(self, sender: str) -> None:
        if self.keeps_jobs or not self.redis.waiting:
            return
        job = self.redis.descriptions[self.redis.waiting.pop(0)]
        data = f"startedAt={int(time.time())}####"
        run = {"command": "runJob", "jmJobData": data, "job": job}
        await self.say(sender, run)

    async def _get_output_dir(self, sender: str, job: str) -> None:
        directory = self.chirp.root / job
        directory.mkdir(exist_ok=True)
        # what `echo -e` of Debian's shell makes of it
        (directory / ".__acl").write_text("-e hostname:* rwl \naddress:* rwl\n\n")
        for each in (directory, *directory.iterdir()):
            each.chmod(each.stat().st_mode | 0o666 | (0o111 if each.is_dir() else 0))
        place = {"outputDir": job, "outputChirpUrl": self.chirp.address, "jobID": job}
        await self.say(sender, {"command": "storeJobOutputDir", **place})

    def _job_done(self, info: Hash, ident: str) -> None:
        job = info["jobID"]
        day = self.chirp.folder / "done" / datetime.now(UTC).strftime("%Y%m%d")
        day.mkdir(parents=True, exist_ok=True)
        archive: Path | None = day / f"{job}.tgz"
        try:
            shutil.move(self.chirp.root / job / f"{job}.tgz", day / f"{job}.tgz")
        except FileNotFoundError:
            archive = None
        self.done.append(Done(info, ident, archive))


@asynccontextmanager
async def original_manager(manager: OriginalManager) -> AsyncIterator[OriginalManager]:
    try:
        await manager.start()
        yield manager
    finally:
        await manager.stop()
