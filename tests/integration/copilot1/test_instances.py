"""Several manager processes on one account and one PostgreSQL database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.chirp import ChirpServer
from tests.harness.copilot1_agent import Habits, OriginalAgent, connected
from tests.harness.copilot1_server import Copilot1Server
from tests.harness.jobs import Jobs, succeeded_once
from tests.harness.postgres import Postgres
from tests.harness.programs import ManagerProgram, client, eventually, manager
from tests.integration.copilot1.settings import SECONDS, section
from tests.integration.copilot1.test_faults import told

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Instances:
    """Managers that share a database, keys, files and the Chirp server."""

    def __init__(
        self,
        server: Copilot1Server,
        chirp: ChirpServer,
        url: str,
        root: Path,
        stack: AsyncExitStack,
    ) -> None:
        self.server = server
        self.chirp = chirp
        self.root = root
        self._stack = stack
        self._store = f'[store]\nurl = "{url}"\nshared_dir = "{root / "shared"}"\n'

    async def start(self, resource: str, account: str = "jm-pg", more: str = "") -> ManagerProgram:
        more += f'resource = "{resource}"\noffer_seconds = 3\n'
        root = self.root / resource
        ours = await section(self.server, self.chirp, root, account=account, more=more)
        entered = manager(root, settings=self._store + ours, lease_seconds=2.0)
        started = await self._stack.enter_async_context(entered)
        await eventually(lambda: "online" in started.said, what=f"{resource} is online")
        return started

    async def jobs(self, of: ManagerProgram) -> Jobs:
        return Jobs(await self._stack.enter_async_context(client(of)))

    @asynccontextmanager
    async def agent(self, name: str, habits: Habits | None = None) -> AsyncIterator[OriginalAgent]:
        work = self.root / "work"
        async with connected(self.server, name, work, habits, "jm-pg@copilot.test") as agent:
            yield agent


@pytest_asyncio.fixture(loop_scope="session")
async def instances(
    server: Copilot1Server, chirp: ChirpServer, postgres: Postgres, tmp_path: Path
) -> AsyncIterator[Instances]:
    async with AsyncExitStack() as stack:
        yield Instances(server, chirp, postgres.database(), tmp_path, stack)


async def test_a_killed_instance_is_replaced_by_the_other(instances: Instances) -> None:
    both = {name: await instances.start(name) for name in ("alpha", "beta")}
    jobs = {name: await instances.jobs(one) for name, one in both.items()}
    gate = instances.root / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.05; done"
    job = await jobs["alpha"].submit("/bin/sh", "-c", script)
    async with instances.agent("agent-pg", Habits(output_minute=0.1)) as agent:
        working = asyncio.create_task(agent.run())
        haves = await told(agent, "have_getJob", 2)
        assert {one.sender.partition("/")[2] for one in haves} == {"alpha", "beta"}
        (run,) = await told(agent, "runJob")
        holder = run.sender.partition("/")[2]
        other = "beta" if holder == "alpha" else "alpha"
        await jobs[other].reached(job, "running")
        await both[holder].kill()
        gate.touch()
        await asyncio.wait_for(working, SECONDS)
        stores = await told(agent, "storeJobOutputDir")
    assert {store.sender.partition("/")[2] for store in stores} == {other}
    view = await jobs[other].ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1


async def test_outputs_are_redirected_to_a_storage_manager(instances: Instances) -> None:
    await instances.server.account("sm-pg")
    alpha = await instances.start("alpha", more='storage_manager = "sm-pg@copilot.test"\n')
    await instances.start("storage", account="sm-pg")
    jobs = await instances.jobs(alpha)
    job = await jobs.submit("/bin/true")
    async with instances.agent("agent-pg2", Habits()) as agent:
        await asyncio.wait_for(agent.run(), SECONDS)
    view = await jobs.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1
    (done,) = [to for to, command, _ in agent.said if command == "jobDone"]
    assert done == "sm-pg@copilot.test/storage"
