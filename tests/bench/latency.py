"""How long a job takes from its submission to an idle pilot: durable, one job at a time.

The clock runs from the moment before the experiment's request is written to its socket until the
pilot's process has read the offer from its own; both read the computer's one monotonic clock. What
libraries of the experiment's choice spend before they write is not in it.
"""

import asyncio
import json
import statistics
import time
from typing import Literal

from tests.bench import bare_sockets
from tests.bench.cycles_load import job
from tests.bench.frame import Frame
from tests.bench.pilots import Pilots, pilots, secrets
from tests.bench.pilots_wire import HttpWire, host_and_port
from tests.bench.processes import cpu_seconds
from tests.bench.results import Result, at_most
from tests.harness import programs

NAME = "latency"
DESCRIPTION = "submit to offer received by an idle pilot"
SECONDS = 180.0
PILOTS = 4
WARM_UP = 50
PAUSE_SECONDS = 0.005
"""Between two submissions, so that the pilots are idle again."""


async def run(frame: Frame) -> list[Result]:
    jobs = frame.pick(2000, 50)
    async with programs.manager(
        frame.root / "manager", heartbeat_seconds=30.0, lease_seconds=300.0
    ) as manager:
        found, cpu = await waits(manager, jobs)
    floor = [1000 * each for each in await bare_sockets.answer_seconds(jobs, PAUSE_SECONDS)]
    return _results(found, floor, 1e6 * cpu / jobs)


async def waits(
    manager: programs.ManagerProgram,
    jobs: int,
    carrier: Literal["websocket", "xmpp"] = "websocket",
    authority: str = "",
) -> tuple[list[float], float]:
    """Milliseconds of each job, and CPU seconds of the manager for all."""
    token = await manager.user_token("experiment", programs.EXPERIMENT)
    made = await secrets(manager, PILOTS)
    user = await User.connect(manager.url, token)
    async with pilots(
        [manager.url], made, count=PILOTS, stamps=True, carrier=carrier, authority=authority
    ) as fleet:
        await _submit_all(user, fleet, WARM_UP)
        await fleet.stamps()
        assert manager.process is not None
        cpu = cpu_seconds([manager.process.pid])
        sent = await _submit_all(user, fleet, jobs)
        cpu = cpu_seconds([manager.process.pid]) - cpu
        offered = await fleet.stamps()
    user.close()
    return [1000 * (offered[each] - at) for each, at in sent.items()], cpu


class User:
    """An experiment with one connection, which submits one job at a time."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._wire = HttpWire(self._answered, self._lost)
        self._answer: asyncio.Future[str] | None = None

    @classmethod
    async def connect(cls, url: str, token: str) -> "User":
        user, (host, port) = cls(token), host_and_port(url)
        await asyncio.get_running_loop().create_connection(lambda: user._wire, host, port)
        return user

    async def submit(self, number: int) -> tuple[str, float]:
        """The job, and when its request was written."""
        body = json.dumps({"jobs": [job(number)]}).encode()
        self._answer = asyncio.get_running_loop().create_future()
        at = time.monotonic()
        self._wire.post("/api/v1/jobs", body, self._token)
        return await self._answer, at

    def _answered(self, status: int, body: bytes) -> None:
        assert self._answer is not None
        if status == 201:
            self._answer.set_result(json.loads(body)["jobs"][0])
        else:
            self._answer.set_exception(RuntimeError(f"a submission got {status}: {body!r}"))

    def _lost(self, _: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the manager hung up"))

    def close(self) -> None:
        self._wire.close()


async def _submit_all(user: User, fleet: Pilots, count: int) -> dict[str, float]:
    """When each job was sent. Returns once all were offered."""
    sent = {}
    for number in range(count):
        name, at = await user.submit(number)
        sent[name] = at
        await asyncio.sleep(PAUSE_SECONDS)
    before = await fleet.read()
    while before.cycles != before.offers:
        await asyncio.sleep(0.05)
        before = await fleet.read()
    return sent


def _results(milliseconds: list[float], floor: list[float], cpu_us: float) -> list[Result]:
    percent, least = _percent(milliseconds), _percent(floor)
    peer = f"an answer on {bare_sockets.PEER}, nothing stored"
    cpu = round(cpu_us, 1)
    return [
        Result(f"{NAME}.p50", percent[49], "ms", at_most(2), peer, least[49], cpu),
        Result(f"{NAME}.p99", percent[98], "ms", at_most(20), peer, least[98]),
    ]


def _percent(values: list[float]) -> list[float]:
    return [round(each, 2) for each in statistics.quantiles(values, n=100, method="inclusive")]
