"""The launcher without BOINC: the demo starts and stops it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from deploy.demo.display import Scene
from deploy.demo.host import Finished, Ground, Host
from deploy.demo.processes import TOOLS, Process, call, program
from deploy.demo.vm import read_status
from vm_launcher.state import Status

_PATIENCE = 30.0


@dataclass(frozen=True)
class LauncherHost:
    launcher: Process
    state: Path

    def check(self) -> None:
        self.launcher.check()

    async def look(self, _: Scene) -> Status:
        return read_status(self.state / "status.json")

    async def finish(self, receipts: int) -> Finished:
        deadline = time.monotonic() + _PATIENCE
        while len(kept := _lines(self.state / "receipts.jsonl")) < receipts:
            if time.monotonic() > deadline:
                raise CopilotError(f"the launcher has {len(kept)} of {receipts} receipts")
            await asyncio.sleep(0.2)
        return Finished(kept)


@asynccontextmanager
async def launcher_host(ground: Ground) -> AsyncIterator[Host]:
    secret = await _enrolment(ground)
    ground.display.step("starting the launcher")
    state = ground.work / "launcher"
    argv = _argv(ground, secret, state)
    async with program("the launcher", argv, ground.logs / "launcher.log") as launcher:
        yield LauncherHost(launcher, state)


async def _enrolment(ground: Ground) -> Path:
    words = ("enrolment", "create", "--expires", "1d", "--output", "quiet")
    secret = await call((*ground.manager, *words))
    target = ground.work / "enrolment"
    target.touch(mode=0o600)
    target.write_text(secret)
    return target


def _argv(ground: Ground, secret: Path, state: Path) -> Sequence[str]:
    options, image = ground.options, ground.image
    return (
        *(str(TOOLS / "vm-launcher"), "run", "--manager", ground.url, "--state", str(state)),
        *("--image", str(image), "--image-key", str(image / "image-key.pub")),
        *("--enrolment-file", str(secret)),
        *("--cpus", str(options.cpus), "--memory", str(options.memory_mib)),
        *ground.launcher_options,
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
