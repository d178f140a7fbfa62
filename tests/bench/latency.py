"""How long a job takes from its submission to an idle pilot: durable, one job at a time.

The clock runs from the moment before the experiment's request is sent until the pilot's process has
read the offer; both processes read the computer's one monotonic clock.
"""

import asyncio
import statistics
import time

import aiohttp

from tests.bench import bare_sockets
from tests.bench.cycles_load import job
from tests.bench.frame import Frame
from tests.bench.pilots import Pilots, pilots, secrets
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
        token = await manager.user_token("experiment", programs.EXPERIMENT)
        made = await secrets(manager, PILOTS)
        async with (
            aiohttp.ClientSession(
                manager.url, headers={"Authorization": f"Bearer {token}"}
            ) as http,
            pilots([manager.url], made, count=PILOTS, stamps=True) as fleet,
        ):
            await _submit_all(http, fleet, WARM_UP)
            await fleet.stamps()
            assert manager.process is not None
            cpu = cpu_seconds([manager.process.pid])
            sent = await _submit_all(http, fleet, jobs)
            cpu = cpu_seconds([manager.process.pid]) - cpu
            offered = await fleet.stamps()
    waits = [1000 * (offered[each] - at) for each, at in sent.items()]
    floor = [1000 * each for each in await bare_sockets.answer_seconds(jobs, PAUSE_SECONDS)]
    return _results(waits, floor, 1e6 * cpu / jobs)


async def _submit_all(http: aiohttp.ClientSession, fleet: Pilots, count: int) -> dict[str, float]:
    """When each job was sent. Returns once all were offered."""
    sent = {}
    for number in range(count):
        at = time.monotonic()
        async with http.post("/api/v1/jobs", json={"jobs": [job(number)]}) as reply:
            assert reply.status == 201, await reply.text()
            sent[(await reply.json())["jobs"][0]] = at
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
