"""A manager with 10^6 waiting and 10^5 leased jobs is killed with -9 and started again.

The kill comes in the middle of submissions; what they acknowledged is looked for afterwards, from
outside. Pilots that held leases before attach again with all that they hold: none may be told to
drop any of it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.frames import Held, ManagerFrame, PilotFrame
from copilot_agent.protocol.job import JobSpec, JobState, Phase
from job_manager_adapter.core.fleet import NOTHING
from job_manager_adapter.files.durable import key_file, private_directory
from job_manager_adapter.transports.http.tokens import AccessTokens
from tests.bench.filled import Bulk, fill
from tests.bench.frame import Frame
from tests.bench.processes import cpu_seconds, rss_bytes, tree
from tests.bench.results import Result, at_most
from tests.harness import programs

NAME = "restart"
DESCRIPTION = "kill -9 with 10^6 waiting and 10^5 leased jobs: serving again, and nothing lost"
SECONDS = 240.0
MOST_SECONDS = 5.0
BATCH = 100
MIB = 1 << 20


@dataclass
class Restart:
    manager: programs.ManagerProgram
    bulk: Bulk
    acknowledged: list[str] = field(default_factory=list)

    async def submit_until_killed(self, batches: int) -> None:
        """Kills the manager while the batch after the last is on its way."""
        enough = asyncio.Event()
        submitting = asyncio.create_task(self._submit(batches, enough))
        await enough.wait()
        await self.manager.kill()
        with suppress(CopilotError, aiohttp.ClientError, OSError):
            await submitting

    async def _submit(self, batches: int, enough: asyncio.Event) -> None:
        job = JobSpec(
            experiment=programs.EXPERIMENT,
            command=("true",),
            requirements=self.bulk.requirements(0),
        )
        async with programs.client(self.manager) as client:
            while True:
                self.acknowledged += (await client.jobs.submit([job] * BATCH)).jobs
                if len(self.acknowledged) >= batches * BATCH:
                    enough.set()

    async def answers(self) -> None:
        """Until a request that needs the store is answered."""
        url = f"{self.manager.url}/api/v1/jobs/{self.bulk.job(1)}"
        headers = {"Authorization": f"Bearer {self.manager.token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    async with http.get(url) as reply:
                        reply.raise_for_status()
                        return
                await asyncio.sleep(0.02)

    async def reattach(self, pilots: Sequence[int]) -> int:
        """Each says what it holds, all of it again; returns how much it was told to drop."""
        tokens = AccessTokens(key_file(self.manager.data / "keys" / "access.key"))
        dropped = 0
        async with aiohttp.ClientSession(self.manager.url) as http:
            for number in pilots:
                token, _ = tokens.issue(self.bulk.pilot(number), time.time())
                async with _socket(http, token) as socket:
                    await socket.send_str(self._holding(number).model_dump_json())
                    text = await socket.receive_str(timeout=30)
                    dropped += len(ManagerFrame.model_validate_json(text).commands)
        return dropped

    def _holding(self, number: int) -> PilotFrame:
        held = [
            Held(job=job, attempt=attempt, phase=Phase.RUNNING)
            for job, attempt in self.bulk.keys(number)
        ]
        return PilotFrame(wants=NOTHING, holding=tuple(held))

    async def lost(self) -> int:
        """Jobs that were acknowledged and are not there, and leases that are not open any more."""
        async with programs.client(self.manager) as client:
            counts = (await client.jobs.counts(experiment=programs.EXPERIMENT)).counts
            waiting = counts.get(JobState.WAITING, 0)
            leased = counts.get(JobState.LEASED, 0) + counts.get(JobState.RUNNING, 0)
            short = max(self.bulk.waiting + len(self.acknowledged) - waiting, 0)
            for job in self.acknowledged[-BATCH:]:
                await client.jobs.show(job)
        return short + max(self.bulk.leased - leased, 0)


@asynccontextmanager
async def _socket(
    http: aiohttp.ClientSession, token: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {token}"}
    async with http.ws_connect("/pilot/v1/socket", headers=headers) as socket:
        yield socket


async def run(frame: Frame) -> list[Result]:
    bulk = Bulk(
        programs.EXPERIMENT,
        waiting=frame.pick(1_000_000, 2000),
        classes=frame.pick(100, 4),
        leased=frame.pick(100_000, 200),
        pilots=frame.pick(10_000, 20),
    )
    manager = programs.ManagerProgram(frame.root, heartbeat_seconds=30.0, lease_seconds=300.0)
    private_directory(manager.data)
    await fill(manager.data / "manager.db", bulk)
    frame.say(f"{bulk.waiting} jobs wait, {bulk.leased} are leased to {bulk.pilots} pilots")
    try:
        await manager.start()
        restart = Restart(manager, bulk)
        await restart.submit_until_killed(frame.pick(20, 2))
        return await _measure(frame, restart)
    finally:
        await manager.stop()


async def _measure(frame: Frame, restart: Restart) -> list[Result]:
    manager, began = restart.manager, time.monotonic()
    starting = asyncio.create_task(manager.start())
    await restart.answers()
    served = time.monotonic() - began
    await restart.reattach([0])
    attached = time.monotonic() - began
    await starting
    assert manager.process is not None
    pids = tree(manager.process.pid)
    cpu, memory = cpu_seconds(pids), rss_bytes(manager.process.pid)
    frame.say(f"a request was answered after {served:.1f} s, CPU {cpu:.1f} s")
    dropped = await restart.reattach(range(frame.pick(200, 20)))
    lost = await restart.lost()
    if len(restart.acknowledged) < BATCH:
        raise RuntimeError("nothing was submitted before the kill")
    jobs = restart.bulk.waiting + restart.bulk.leased
    return [
        Result("restart.serving", served, "s", at_most(MOST_SECONDS), cpu_us=1e6 * cpu / jobs),
        Result("restart.pilot-attached", attached, "s", at_most(MOST_SECONDS)),
        Result("restart.acknowledged-lost", lost, "1", at_most(0)),
        Result("restart.leases-dropped", dropped, "1", at_most(0)),
        Result("restart.memory", memory / MIB, "MiB"),
    ]
