"""A double of the ORIGINAL agent of Co-Pilot 1, which is a Perl program and cannot run here.

It behaves as that was measured to: state machine, timers, acknowledgements, resent copies, shell
commands with unquoted names, Chirp by the real tools. A minute may be made shorter. It has its own
codec, so that nothing of ours is tested against itself.
"""

import asyncio
import base64
import resource
import secrets
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from copilot_agent.xmpp.client import ClientStream
from copilot_agent.xmpp.errors import XmppError
from tests.harness.copilot1_server import Copilot1Server
from tests.harness.programs import eventually

NAMESPACE = "{jabber:client}"
WANT_GAPS = (1, 2, 4, 8, 16, 32)
"""Minutes between two requests; then from the beginning."""
Values = Mapping[str, "str | Mapping[str, str]"]


class AgentDiedError(Exception):
    """As the original does; nothing is reported."""


@dataclass
class Habits:
    """What this one does; by default what the newer generation does, in a short minute."""

    generation: str = "B"
    minute: float = 1.0
    """Seconds."""
    output_minute: float = 1.0
    """Seconds, between two questions where outputs go."""
    acks: bool = True
    dies_with_job: bool = False
    reports_times: int = 1
    machine: str = '[\nMemory=4096;\nPlatform="Linux-x86_64";\nLocalDiskSpace=8000000;\n]\n'
    jobs: int = 1
    """After so many it is content."""
    has_files: tuple[str, ...] = ()


@dataclass
class Told:
    """A message that came in."""

    sender: str
    id: str
    command: str
    values: dict[str, str]
    job: dict[str, str] = field(default_factory=dict)
    nested: dict[str, str] = field(default_factory=dict)


@dataclass
class Sent:
    stanza: Element
    id: str
    at: float
    resent: int = 0


class OriginalAgent:
    def __init__(
        self, stream: ClientStream, manager: str, work: Path, habits: Habits | None = None
    ) -> None:
        self.stream = stream
        self.manager = manager
        """Bare: the broadcast address."""
        self.work = work
        self.habits = habits or Habits()
        self.told: list[Told] = []
        """All that was understood, in its order."""
        self.acked: list[str] = []
        """Ids that the other side has acknowledged."""
        self.said: list[tuple[str, str, str]] = []
        """Recipient, command and id of what was said."""
        self.outcomes: list[int] = []
        self.rebooted = False
        self._expected = ""
        self._acting: asyncio.Future[Told] | None = None
        self._unacked: dict[str, Sent] = {}
        self._processed: dict[str, int] = {}

    # ----- wire

    def _stanza(self, to: str, values: Values, name: str) -> Element:
        message = Element(f"{NAMESPACE}message", {"to": to, "id": name})
        body = SubElement(message, f"{NAMESPACE}body")
        _write(SubElement(body, f"{NAMESPACE}info"), values)
        return message

    async def say(self, to: str, command: str, name: str = "", **values: str) -> str:
        """Sends a command as it first goes out; its id."""
        name = name or str(uuid.uuid4())
        stanza = self._stanza(to, {"command": command, **values}, name)
        loop = asyncio.get_running_loop()
        self._unacked[name] = Sent(
            _corrupted(to, {"command": command, **values}, name), name, loop.time()
        )
        self.said.append((to, command, name))
        await self.stream.send(stanza)
        return name

    async def say_again(self, name: str) -> None:
        """The corrupted copy that the original sends when nobody has acknowledged."""
        await self.stream.send(self._unacked[name].stanza)

    # ----- life

    async def run(self) -> None:
        """Until it has done its jobs, or dies."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._listen()), group.create_task(self._resend())]
            try:
                for _ in range(self.habits.jobs):
                    await self._one_job()
                await self._all_acked()
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _all_acked(self) -> None:
        await eventually(lambda: not self._unacked, what="everything is acknowledged")

    async def _one_job(self) -> None:
        job = await self._get_job()
        if self.habits.dies_with_job:
            raise AgentDiedError("the machine was switched off")
        directory = self.work / job.job["id"]
        await self._prepare(job.job, directory)
        status, cpu = await self._execute(directory)
        validation = await self._validate(job.job, directory)
        await self._put_output(job, directory, status, validation, cpu)
        self.outcomes.append(status)

    async def _get_job(self) -> Told:
        """Timers as in the original: 60·k s, k = 1, 2, 4 .. 32 and again."""
        gap = missing = 0
        while True:
            details = {"jdl": self.habits.machine, "agentHost": "vm"}
            waiting = self._expect("have_getJob")
            await self.say(self.manager, "want_getJob", **details)
            have = await self._within(waiting, WANT_GAPS[gap] * self.habits.minute)
            if have is not None and self._lacks(have):
                missing += 1
                if missing == 4:
                    raise AgentDiedError("the required file is missing")
                await asyncio.sleep(WANT_GAPS[gap] * self.habits.minute)
            elif have is not None:
                gap = missing = 0
                waiting = self._expect("runJob")
                await self.say(have.sender, "getJob", **details)
                if job := await self._within(waiting, self.habits.minute):
                    return job
                continue
            gap = (gap + 1) % len(WANT_GAPS)

    def _lacks(self, have: Told) -> bool:
        required = have.values.get("requireFile")
        return bool(required) and required not in self.habits.has_files

    def _expect(self, command: str) -> "asyncio.Future[Told]":
        self._expected, self._acting = command, asyncio.get_running_loop().create_future()
        return self._acting

    async def _within(self, waiting: "asyncio.Future[Told]", seconds: float) -> Told | None:
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(waiting), seconds)
        return None

    # ----- what comes in

    async def _listen(self) -> None:
        async for stanza in self.stream.stanzas():
            if stanza.tag != f"{NAMESPACE}message":
                continue
            if acked := stanza.get("ack"):
                assert stanza.get("id") is None and len(stanza) == 0, "an ack has no id and no body"
                self.acked.append(acked)
                self._unacked.pop(acked, None)
                continue
            info = stanza.find(f"{NAMESPACE}body/{NAMESPACE}info")
            if info is not None and stanza.get("id") and stanza.get("type") != "error":
                await self._hear(stanza, info)

    async def _hear(self, stanza: Element, info: Element) -> None:
        name, sender = stanza.get("id", ""), stanza.get("from", "")
        count = self._processed[name] = self._processed.get(name, 0) + 1
        old = self.habits.generation == "A"
        if self.habits.acks and not (old and count > 1) and (old or not stanza.get("noack")):
            ack = {"to": sender, "from": stanza.get("to", ""), "ack": name}
            await self.stream.send(Element(f"{NAMESPACE}message", ack))
        if count > (1 if old else 3):
            return
        told = _read(sender, name, info)
        self.told.append(told)
        await self._act(told)

    async def _act(self, told: Told) -> None:
        match told.command:
            case "sleep":
                self.rebooted = True
            case "error":
                raise AgentDiedError(told.values.get("errorString", ""))
            case "redirect":
                values = dict(told.nested)
                await self.say(told.values["referral"], values.pop("command"), **values)
            case self._expected if self._acting and not self._acting.done():
                self._expected = ""
                self._acting.set_result(told)

    async def _resend(self) -> None:
        """A: at 60 + 10·2^n s after the first time; B: at 60 + 60·2^n s."""
        loop, second = asyncio.get_running_loop(), self.habits.minute / 60
        step = 10 if self.habits.generation == "A" else 60
        while True:
            await asyncio.sleep(10 * second)
            for sent in list(self._unacked.values()):
                if loop.time() - sent.at >= (60 + step * 2**sent.resent) * second:
                    sent.resent += 1
                    await self.stream.send(sent.stanza)

    # ----- the job

    async def _sh(self, line: str, expects: int | None = 0) -> tuple[int, str, str]:
        """A line for the shell, as the original pastes it; the wait status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", line),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            process.kill()
            raise
        code = process.returncode or 0
        if expects is not None and code != expects:
            raise AgentDiedError(f"{line}: {code}: {err.decode()}")
        return (code << 8 if code >= 0 else -code), out.decode(), err.decode()

    async def _prepare(self, job: Mapping[str, str], directory: Path) -> None:
        await self._sh(f"mkdir -p {directory}")
        for name in filter(None, job.get("inputFiles", "").split("###")):
            source = f"{job['inputDir']}/{name}"
            get = f"chirp_get -t 5 -a address {job['chirpUrl']} {source} {directory}/{name}"
            await self._sh(get)
        packages = "".join(
            f"export PACKAGE_{number}={name.partition('@')[2].replace('::', '/', 1)}\n"
            for number, name in enumerate(job.get("packages", "").split())
        )
        (directory / "_wrapper_.sh").write_text(
            f"#!/bin/sh\n{packages}{job.get('environment', '')}\ncd {directory}\n"
            f"chmod a+x {job['command']}\n./{job['command']} {job.get('arguments', '')}\n"
        )
        await self._sh(f"cd {directory} && touch stdout stderr resources")

    async def _execute(self, directory: Path) -> tuple[int, float]:
        wrapper = f"{directory}/_wrapper_.sh"
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        line = f"cd {directory} && chmod a+x {wrapper} && . {wrapper}"
        status, out, err = await self._sh(line, expects=None)
        (directory / "stdout").write_text(out)
        (directory / "stderr").write_text(err)
        return status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    async def _validate(self, job: Mapping[str, str], directory: Path) -> int | None:
        if not (script := job.get("validationScript")):
            return None
        line = f"cd {directory} && chmod a+x {script} && ./{script}"
        status, out, _ = await self._sh(line, expects=None)
        (directory / "validate_stdout").write_text(out)
        return status

    async def _put_output(
        self, job: Told, directory: Path, status: int, validation: int | None, cpu: float
    ) -> None:
        name, data = job.job["id"], job.values.get("jmJobData", "")
        about = {"jobID": name, "agentHost": "vm", **({"jmJobData": data} if data else {})}
        store = await self._output_dir(about)
        data = store.values.get("jmJobData") or data
        if self.habits.generation == "B" and data:
            data = f"wallTime={cpu:.2f}####{data}"
        tgz = f"{directory}/{name}.tgz"
        await self._sh(f"tar --directory {directory} -cvzf {tgz} --exclude {name}.tgz .", None)
        url = store.values["outputChirpUrl"]
        await self._sh(f"chirp_put -t 5 -a address {tgz} {url} {name}/{name}.tgz")
        values = {"jobID": name, "state": "ready", "exitCode": str(status), "agentHost": "vm"}
        if validation is not None:
            values["validateExitCode"] = str(validation)
        for _ in range(self.habits.reports_times):
            await self.say(
                store.sender, "jobDone", **values, **({"jmJobData": data} if data else {})
            )

    async def _output_dir(self, about: Mapping[str, str]) -> Told:
        gap = 0
        while True:
            waiting = self._expect("have_getJobOutputDir")
            await self.say(self.manager, "want_getJobOutputDir", agentIP="todo", **about)
            have = await self._within(waiting, WANT_GAPS[gap] * self.habits.output_minute)
            gap = (gap + 1) % len(WANT_GAPS) if have is None else 0
            if have is None:
                continue
            waiting = self._expect("storeJobOutputDir")
            await self.say(have.sender, "getJobOutputDir", **about)
            if store := await self._within(waiting, self.habits.minute / 6):
                return store


# ----- the original's codec, written from its description


def _value(text: str) -> str:
    return "_BASE64:" + base64.encodebytes(text.encode()).decode()


def _write(element: Element, values: Values) -> None:
    for key, value in values.items():
        if isinstance(value, str):
            element.set(key, _value(value))
        else:
            _write(SubElement(element, NAMESPACE + key), value)


def _corrupted(to: str, values: Mapping[str, str], name: str) -> Element:
    """A resent copy: bare values, and the addresses of Perl's hashes."""
    junk = [f"HASH(0x{secrets.token_hex(6)})" for _ in range(2)]
    message = Element(f"{NAMESPACE}message", {"to": to, "id": name, "body": junk[0]})
    body = SubElement(message, f"{NAMESPACE}body", {"info": junk[1]})
    SubElement(body, f"{NAMESPACE}info", dict(values))
    return message


def _decoded(element: Element) -> dict[str, str]:
    found = {}
    for key, raw in element.attrib.items():
        if raw.startswith("_BASE64"):
            raw = base64.b64decode(raw.removeprefix("_BASE64").encode()).decode()
        found[key] = raw
    return found


def _read(sender: str, name: str, info: Element) -> Told:
    values = _decoded(info)
    job, nested = info.find(f"{NAMESPACE}job"), info.find(f"{NAMESPACE}info")
    return Told(
        sender,
        name,
        values.get("command", ""),
        values,
        _decoded(job) if job is not None else {},
        _decoded(nested) if nested is not None else {},
    )


@asynccontextmanager
async def connected(
    server: Copilot1Server,
    name: str,
    work: Path,
    habits: Habits | None = None,
    manager: str = "jm@copilot.test",
) -> AsyncIterator[OriginalAgent]:
    """Logged in as `name`; `run` it, or speak by hand."""
    stream = ClientStream(await server.login(name))
    work.mkdir(parents=True, exist_ok=True)
    await stream.open()
    agent = OriginalAgent(stream, manager, work, habits)
    try:
        await stream.send(Element(f"{NAMESPACE}presence"))
        yield agent
    finally:
        with suppress(XmppError):
            await stream.close()
        shutil.rmtree(work, ignore_errors=True)
