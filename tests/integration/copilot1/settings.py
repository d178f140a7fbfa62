"""A manager that serves original agents, with everything that belongs to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.harness import programs
from tests.harness.chirp import ChirpServer
from tests.harness.copilot1_agent import Habits, OriginalAgent, connected
from tests.harness.copilot1_server import Copilot1Server
from tests.harness.jobs import Jobs

SECONDS = 30.0
_numbers = itertools.count(1)


async def section(
    server: Copilot1Server,
    chirp: ChirpServer,
    root: Path,
    *,
    account: str = "jm",
    more: str = "",
) -> str:
    """`[copilot1]` of a manager in `root`."""
    jid = await server.account(account)
    root.mkdir(parents=True, exist_ok=True)
    password = root / "copilot1.password"
    password.touch(mode=0o600)
    password.write_text(f"{server.passwords[jid]}\n")
    return (
        f'[copilot1]\njid = "{jid}"\npassword_file = "{password}"\n'
        f'host = "127.0.0.1"\nport = {server.c2s_port}\nca_file = "{server.authority.file}"\n'
        f'experiments = ["{programs.EXPERIMENT}"]\n'
        f'chirp_root = "{chirp.root}"\nchirp_address = "{chirp.address}"\n'
        f'chirp_subject = "address:127.0.0.1"\n{more}'
    )


@dataclass
class Setting(Jobs):
    root: Path
    server: Copilot1Server
    chirp: ChirpServer
    manager: programs.ManagerProgram
    account: str = "jm"

    @asynccontextmanager
    async def agent(self, habits: Habits | None = None) -> AsyncIterator[OriginalAgent]:
        """With an account of its own."""
        name = f"agent-{next(_numbers)}"
        work, manager = self.root / name, f"{self.account}@copilot.test"
        async with connected(self.server, name, work, habits, manager) as agent:
            yield agent

    async def works(self, habits: Habits | None = None) -> OriginalAgent:
        """An agent that has done what it had to."""
        async with self.agent(habits) as agent:
            await asyncio.wait_for(agent.run(), SECONDS)
            return agent

    async def upload(self, name: str, content: bytes, **more: object) -> dict[str, object]:
        """As one of a job's inputs."""
        digest = sha256(content).hexdigest()
        path = self.root / "uploads" / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        await self.client.files.upload(path, digest)
        return {"name": name, "sha256": digest, "size": len(content), **more}


@asynccontextmanager
async def running(
    server: Copilot1Server, chirp: ChirpServer, root: Path, more: str = "", account: str = "jm"
) -> AsyncIterator[Setting]:
    settings = await section(server, chirp, root / "manager", more=more, account=account)
    async with (
        programs.manager(root / "manager", settings=settings) as manager,
        programs.client(manager) as client,
    ):
        setting = Setting(client, root, server, chirp, manager, account)
        await programs.eventually(lambda: "online" in manager.said, what="the account is online")
        yield setting
