"""Our agent as a real process, working for doubles of original managers."""

import tarfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.demo.processes import Process, program
from tests.harness.copilot1_manager import MANAGERS, Done
from tests.harness.copilot1_server import DOMAIN, Copilot1Server
from tests.harness.programs import TOOLS

HURRY = 150.0
"""So much faster than the originals go all timers, on both sides."""
COOLDOWN = 50 / HURRY
"""A little less than the originals' 60 s, as a busy computer is late by more than a hundredth."""


@dataclass
class Copilot1Agent:
    server: Copilot1Server
    folder: Path
    name: str
    options: tuple[str, ...] = ()
    trusted: bool = True
    """It knows the authority of the server's certificate."""
    process: Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        jid = await self.server.account(self.name)
        password = self.folder / f"{self.name}.password"
        password.touch(mode=0o600)
        password.write_text(self.server.passwords[jid])
        argv = (
            *(str(TOOLS / "copilot-agent"), "copilot1", "--jid", jid),
            *("--password-file", str(password), "--managers", f"{MANAGERS}@{DOMAIN}"),
            *("--server", f"127.0.0.1:{self.server.c2s_port}"),
            *("--state", str(self.state)),
            *(("--ca", str(self.server.authority.file)) if self.trusted else ()),
            *("--cores", "1", "--memory", "512", "--disk", "512", "--hurry", str(HURRY)),
            *self.options,
        )
        log = self.folder / f"{self.name}-{len(list(self.folder.glob('*.log')))}.log"
        self.process = await self._stack.enter_async_context(program("agent", argv, log))

    @property
    def state(self) -> Path:
        return self.folder / self.name

    @property
    def said(self) -> str:
        """All that it has logged."""
        logs = sorted(self.folder.glob(f"{self.name}-*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()

    async def stop(self) -> None:
        await self._stack.aclose()


class Submit(Protocol):
    """Puts a job into the managers' queue, as copilot-job-submit; its id."""

    def __call__(self, script: str, data: bytes = b"", **job: str) -> str: ...


def contents(done: Done) -> dict[str, bytes]:
    """The regular files of a job's archive."""
    assert done.archive is not None, "there is no archive"
    with tarfile.open(done.archive, "r:gz") as archive:
        return {
            member.name.removeprefix("./"): file.read()
            for member in archive
            if member.isreg() and (file := archive.extractfile(member)) is not None
        }
