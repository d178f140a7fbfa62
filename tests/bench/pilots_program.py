"""The process of simulated pilots. `tests.bench.pilots` starts it and talks to it in JSON lines.

The first line on stdin is the `Order`, then come commands; every command is answered by one line.
What pilots say is the real protocol in hand-made JSON: their own cost must not hide the manager's.
"""

import asyncio
import hashlib
import itertools
import json
import re
import resource
import sys
import time
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.enrolment import enrolment_statement
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from tests.bench.pilots_wire import HttpWire, SocketWire, host_and_port
from tests.bench.pilots_xmpp import XmppWire

POLL_SECONDS = 25
BEAT_SECONDS = 0.02
_OFFER = re.compile(rb'\{"job":"(j-[0-9a-z]{20})","attempt":(\d+),"spec":')
_VERDICT = re.compile(rb'\{"job":"(j-[0-9a-z]{20})","attempt":\d+,"verdict":"(\w+)"')
_RECEIPT = re.compile(rb'"id":"(r-[0-9a-z]{20})"')
_COMMAND = re.compile(rb'"id":"(c-[0-9a-z]{20})"')
_SESSION = re.compile(rb'"session":(\d+)')
_EMPTY = b'"sha256":"' + hashlib.sha256(b"").hexdigest().encode() + b'","size":0}'
_OUTPUTS = b'[{"name":"stdout.log",' + _EMPTY + b',{"name":"stderr.log",' + _EMPTY + b"]"
_PROGRESS = b'"phase":"running","cpu_seconds":0.25,"memory_bytes":33554432,"wall_seconds":0.5}'
_RESULT = (
    b'"outcome":"succeeded","exit_code":0,"usage":{"wall_seconds":1.0,"cpu_seconds":0.5,'
    b'"peak_memory_bytes":33554432},"outputs":' + _OUTPUTS + b"}"
)
Held = tuple[bytes, bytes]
"""(job, attempt) as they came."""


class Fleet:
    """All pilots of this process and what became of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.cycle = order["mode"] == "cycle"
        self.attached = self.offers = self.cycles = self.refused = self.closed = self.heartbeats = 0
        self.stamps: dict[str, float] | None = {} if order["stamps"] else None
        self.close_codes: set[int] = set()
        self.changed = asyncio.Event()
        self.pilots: list[Pilot] = []

    def offered(self, found: list[Held]) -> None:
        self.offers += len(found)
        if self.stamps is not None:
            now = time.monotonic()
            self.stamps.update((job.decode(), now) for job, _ in found)

    def reading(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        names = ("attached", "offers", "cycles", "refused", "closed", "heartbeats")
        return {
            "at": time.monotonic(),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            **{name: getattr(self, name) for name in names},
        }


class Pilot:
    """One; `hold` keeps what it is offered, `cycle` reports it done at once."""

    __slots__ = (
        *("fleet", "url", "id", "token", "xmpp", "session", "sequence", "held", "reported", "kept"),
        *("_wire", "_wants", "_running_said"),
    )

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet = fleet
        self.url = url
        self.id = self.token = ""
        self.session = b""
        self.sequence = itertools.count(1)
        self.held: list[Held] = []
        self.reported: dict[bytes, Held] = {}
        """Reports without a verdict, by job."""
        self.kept: list[bytes] = []
        """Receipts and commands to be confirmed."""
        self.xmpp: dict[str, Any] | None = None
        self._wire: SocketWire | HttpWire | XmppWire | None = None
        self._wants = _wants(fleet.order, fleet.order["hungry"])
        self._running_said = False

    # Connection

    async def connect(self) -> None:
        if self.xmpp is not None and self.fleet.order["carrier"] == "xmpp":
            xmpp = XmppWire(self.id, self.token, self.xmpp, self._heard, self._closed)
            await xmpp.connect(self.fleet.order["authority"])
            self._wire = xmpp
            self._opened()
            return
        if self.fleet.order["carrier"] == "poll":
            self._wire = HttpWire(self._answered, self._closed)
        else:
            self._wire = SocketWire(self.token, self._opened, self._heard, self._closed)
        wire, (host, port) = self._wire, host_and_port(self.url)
        await asyncio.get_running_loop().create_connection(lambda: wire, host, port)
        if isinstance(wire, HttpWire):
            self._opened()

    def _opened(self) -> None:
        self._say(b"", wait=0)

    def _closed(self, code: int) -> None:
        if self.session:
            self.fleet.attached -= 1
        self.fleet.closed += 1
        self.fleet.close_codes.add(code)
        self.fleet.changed.set()

    def _answered(self, status: int, body: bytes) -> None:
        """To a poll: one thing at a time."""
        if status == 200:
            self._read(body)
        elif status != 204:
            self.fleet.refused += 1
            self.fleet.changed.set()
            return
        if not (self.held and self.fleet.cycle):
            self._say(b"" if self.fleet.cycle else self._running())
        elif self._running_said:
            self._say_done()
        else:
            self._running_said = True
            self._say(self._running(), wait=0)

    def _heard(self, body: bytes) -> None:
        """From the socket."""
        if self._read(body):
            self._say(self._running())
            if self.fleet.cycle:
                self._say_done()

    def _read(self, body: bytes) -> bool:
        """Takes in a frame of the manager; whether it brought offers."""
        if not self.session:
            self._check(body)
        if b'"verdicts":[' in body:
            self._verdicts(body)
            self.kept += _RECEIPT.findall(body)
        if b'"commands":[' in body:
            self.kept += _COMMAND.findall(body)
        if b'"offers":[' not in body:
            return False
        found = _OFFER.findall(body)
        self.held += found
        self.fleet.offered(found)
        return True

    def _check(self, body: bytes) -> None:
        """The first frame really is one."""
        self.session = b'"session":%d,' % ManagerFrame.model_validate_json(body).session
        self.fleet.attached += 1
        self.fleet.changed.set()

    def _verdicts(self, body: bytes) -> None:
        for job, verdict in _VERDICT.findall(body):
            if verdict == b"accepted" and self.reported.pop(job, None):
                self.fleet.cycles += 1
            else:
                self.fleet.refused += 1

    # What it says

    def want(self, hungry: bool) -> None:
        self._wants = _wants(self.fleet.order, hungry)
        self.beat()

    def beat(self) -> None:
        """A heartbeat."""
        self.fleet.heartbeats += 1
        self._say(self._running())

    def _running(self) -> bytes:
        news = b",".join(b'{"job":"%s","attempt":%s,' % it + _PROGRESS for it in self.held)
        return self._holding() + (b',"progress":[%s]' % news if news else b"")

    def _holding(self) -> bytes:
        held = [b'{"job":"%s","attempt":%s,"phase":"running"}' % it for it in self.held]
        held += [
            b'{"job":"%s","attempt":%s,"phase":"reporting"}' % it for it in self.reported.values()
        ]
        return b',"holding":[%s]' % b",".join(held) if held else b""

    def _say_done(self) -> None:
        reports = b",".join(b'{"job":"%s","attempt":%s,' % it + _RESULT for it in self.held)
        self.reported.update((it[0], it) for it in self.held)
        self.held = []
        self._running_said = False
        self._say(self._holding() + b',"reports":[%s]' % reports)

    def _say(self, more: bytes, wait: int = POLL_SECONDS) -> None:
        if self.kept:
            receipts = b'","'.join(one for one in self.kept if one[:1] == b"r")
            commands = b'","'.join(one for one in self.kept if one[:1] == b"c")
            more += b',"receipts_kept":["%s"]' % receipts if receipts else b""
            more += b',"commands_done":["%s"]' % commands if commands else b""
            self.kept = []
        body = b'{%s"sequence":%d,%s%s}' % (self.session, next(self.sequence), self._wants, more)
        if isinstance(self._wire, SocketWire | XmppWire):
            self._wire.send(body)
        elif self._wire is not None:
            self._wire.post(f"/pilot/v1/frames?wait={wait}", body, self.token)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()


def _wants(order: dict[str, Any], hungry: bool) -> bytes:
    """One slot and a queue: never more than `window` jobs in one pilot's hands."""
    cores, memory, disk = (order[name] if hungry else 0 for name in ("cores", "memory", "disk"))
    queue = order["window"] - 1 if hungry else 0
    wants = {"cores": cores, "memory_mib": memory, "disk_mib": disk, "window": queue}
    body = b'"wants":' + json.dumps(wants, separators=(",", ":")).encode()
    PilotFrame.model_validate_json(b"{" + body + b"}")
    return body


class Enroller:
    """Enrols pilots one after the other over one connection."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._wire = HttpWire(self._answered, self._lost)

    async def enrol(self, pilot: Pilot, secret: str, capabilities: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._wire.post("/pilot/v1/enrol", _enrolment(secret, capabilities))
        status, body = await self._answer
        if status != 200:
            raise RuntimeError(f"enrolment: {status} {body[:300].decode(errors='replace')}")
        reply = json.loads(body)
        pilot.id, pilot.token = reply["pilot"], reply["access_token"]
        pilot.xmpp = reply.get("xmpp")

    async def connect(self, url: str) -> None:
        host, port = host_and_port(url)
        await asyncio.get_running_loop().create_connection(lambda: self._wire, host, port)

    def _answered(self, status: int, body: bytes) -> None:
        assert self._answer is not None
        self._answer.set_result((status, body))

    def _lost(self, _: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the manager hung up"))

    def close(self) -> None:
        self._wire.close()


def _enrolment(secret: str, capabilities: dict[str, Any]) -> bytes:
    launcher, pilot = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    key = _base64(pilot.public_key().public_bytes_raw())
    statement = enrolment_statement(hashlib.sha256(secret.encode()).hexdigest(), key)
    body = {
        "secret": secret,
        "launcher_key": _base64(launcher.public_key().public_bytes_raw()),
        "pilot_key": key,
        "signature": _base64(launcher.sign(statement)),
        "capabilities": capabilities,
    }
    return json.dumps(body).encode()


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


async def enrol_and_attach(fleet: Fleet) -> None:
    """`order["parallel"]` at a time; each manager gets every n-th pilot."""
    order = fleet.order
    urls = order["urls"]
    fleet.pilots = [Pilot(fleet, urls[number % len(urls)]) for number in range(order["count"])]
    capabilities = {
        "cores": order["cores"],
        "memory_mib": order["memory"],
        "disk_mib": order["disk"],
        **order["capabilities"],
    }
    due = iter(list(enumerate(fleet.pilots)))

    async def work() -> None:
        enrollers: dict[str, Enroller] = {}
        for number, pilot in due:
            if pilot.url not in enrollers:
                enrollers[pilot.url] = Enroller()
                await enrollers[pilot.url].connect(pilot.url)
            secret = order["secrets"][number // order["per_secret"]]
            await enrollers[pilot.url].enrol(pilot, secret, capabilities)
            await pilot.connect()
        for enroller in enrollers.values():
            enroller.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(order["parallel"], order["count"])):
            group.create_task(work())
    while fleet.attached < order["count"]:
        fleet.changed.clear()
        if fleet.closed or fleet.refused:
            codes = f"{fleet.closed} with code {sorted(fleet.close_codes)}"
            raise RuntimeError(f"pilots were closed, {codes}, and {fleet.refused} refused")
        await fleet.changed.wait()


async def heartbeats(fleet: Fleet, rate: float) -> None:
    """All pilots in turn, `rate` a second together, until cancelled."""
    loop, line = asyncio.get_running_loop(), itertools.cycle(fleet.pilots)
    started, said = loop.time(), 0
    while True:
        due = int((loop.time() - started) * rate)
        for pilot in itertools.islice(line, due - said):
            pilot.beat()
        said = due
        await asyncio.sleep(BEAT_SECONDS)


async def obey(fleet: Fleet, lines: asyncio.StreamReader) -> None:
    """Commands until `stop` or the end of stdin."""
    beating: asyncio.Task[None] | None = None
    while line := await lines.readline():
        command = json.loads(line)
        answer: dict[str, Any] = {}
        match command["do"]:
            case "stop":
                break
            case "want":
                for pilot in fleet.pilots:
                    pilot.want(command["hungry"])
            case "heartbeat":
                if beating is not None:
                    beating.cancel()
                if command["rate"]:
                    beating = asyncio.create_task(heartbeats(fleet, command["rate"]))
            case "stamps":
                answer["stamps"], fleet.stamps = fleet.stamps, {}
        say({**fleet.reading(), **answer})
    for pilot in fleet.pilots:
        pilot.close()


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    fleet = Fleet(json.loads(await lines.readline()))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await enrol_and_attach(fleet)
    say(fleet.reading())
    await obey(fleet, lines)


if __name__ == "__main__":
    asyncio.run(main())
