"""Simulated pilots in a process of their own: real enrolments, tokens, carriers and frames.

    async with pilots([manager.url], await secrets(manager, 64), count=64, window=1) as fleet:
        before = await fleet.read()
        ...
        after = await fleet.read()

`mode="cycle"`: an offer is answered by a heartbeat (running, with progress) and then a report of
success whose empty logs need no upload; the verdict's receipt is confirmed by the next frame.
`mode="hold"`: an offer is kept, and confirmed by one heartbeat; `heartbeat(rate)` lets all pilots
say more of them. Pilots that are not `hungry` attach and want nothing until `want(True)`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from deploy.demo.processes import call
from tests.harness.programs import ManagerProgram

PER_SECRET = 32
"""Pilots that share a secret; enrolling costs a little for each that came before."""


@dataclass(frozen=True)
class Reading:
    """Counters of the process since its start."""

    at: float
    """Seconds of the clock that all processes of this computer share (time.monotonic)."""
    cpu_seconds: float
    attached: int
    offers: int
    cycles: int
    """Jobs whose reports were accepted."""
    refused: int
    """Verdicts and answers that were not what a good pilot gets: 0, or the figures are void."""
    closed: int
    """Connections that ended."""
    heartbeats: int


class Pilots:
    """A handle of the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self) -> Reading:
        return await self._do("read")

    async def want(self, hungry: bool) -> Reading:
        """All pilots say that they want jobs (or none) from now on."""
        return await self._do("want", hungry=hungry)

    async def heartbeat(self, rate: float) -> Reading:
        """So many a second together from now on, all in turn; 0 stops them."""
        return await self._do("heartbeat", rate=rate)

    async def stamps(self) -> dict[str, float]:
        """When each job was offered (time.monotonic), since the last time; needs `stamps=True`."""
        found: dict[str, float] = (await self._ask("stamps"))["stamps"]
        return found

    async def _do(self, verb: str, **more: object) -> Reading:
        return Reading(**await self._ask(verb, **more))

    async def _ask(self, verb: str, **more: object) -> dict[str, Any]:
        async with self._lock:
            self._send({"do": verb, **more})
            return await self._hear()

    def _send(self, line: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the pilots' process ended: {await self._process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def start(self, order: Mapping[str, object]) -> Reading:
        """Enrols and attaches them all."""
        self._send(order)
        return Reading(**await self._hear())

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def pilots(
    urls: Sequence[str],
    secrets: Sequence[str],
    *,
    count: int,
    window: int = 1,
    carrier: Literal["websocket", "poll", "xmpp"] = "websocket",
    authority: str = "",
    mode: Literal["cycle", "hold"] = "cycle",
    hungry: bool = True,
    stamps: bool = False,
    cores: int = 1,
    memory_mib: int = 512,
    disk_mib: int = 512,
    capabilities: Mapping[str, object] | None = None,
    parallel: int = 16,
) -> AsyncIterator[Pilots]:
    """`count` attached pilots, in turn at each of `urls`; `secrets` as `secrets()` makes them.

    `authority` is a file with the certificate that the XMPP server's is signed with.
    A pilot never has more than `window` jobs in its hands: one slot and a queue.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.pilots_program"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    fleet = Pilots(process)
    order = {
        "urls": list(urls),
        "secrets": list(secrets),
        "per_secret": PER_SECRET,
        "count": count,
        "window": window,
        "carrier": carrier,
        "authority": authority,
        "mode": mode,
        "hungry": hungry,
        "stamps": stamps,
        "cores": cores,
        "memory": memory_mib,
        "disk": disk_mib,
        "capabilities": dict(capabilities or {}),
        "parallel": parallel,
    }
    try:
        await fleet.start(order)
        yield fleet
    finally:
        await fleet.stop()


async def secrets(manager: ManagerProgram, count: int) -> list[str]:
    """Enrolment secrets for `count` pilots, made by the manager's own command."""
    words = ["enrolment", "create", "--launchers", str(PER_SECRET), "--output", "json"]
    words += ["--count", str(-(-count // PER_SECRET))]
    made = json.loads(await call((*manager.command, *words)))
    return [each["secret"] for each in made]
