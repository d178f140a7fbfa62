"""A launcher with its virtual machine, under a real manager."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.processes import Process, call, program
from tests.harness import programs
from tests.harness.programs import ManagerProgram
from vm_launcher.drivers.base import Handle
from vm_launcher.state import Status

IDLE_SECONDS = 120.0
LASTING = {"launcher.key", "launcher.lock", "status.json", "image-cache", "image-serial"}


def left_behind(state: Path) -> set[str]:
    """Names in a state directory, without those that stay for the next run."""
    return {entry.name for entry in state.iterdir()} - LASTING


@dataclass
class VmProgram:
    """A `vm-launcher run` that may be killed and started again on the same state directory."""

    manager: ManagerProgram
    state: Path
    secret: Path
    image: Path
    options: Sequence[str] = ()
    process: Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def key_file(self) -> Path:
        return self.image / "image-key.pub"

    async def start(self) -> None:
        argv = (
            *(str(programs.TOOLS / "vm-launcher"), "run", "--manager", self.manager.url),
            *("--state", str(self.state), "--enrolment-file", str(self.secret)),
            *("--image", str(self.image), "--image-key", str(self.key_file), *self.options),
        )
        count = len(list(self.state.parent.glob(f"{self.state.name}-*.log")))
        log = self.state.with_name(f"{self.state.name}-{count}.log")
        self.process = await self._stack.enter_async_context(program("launcher", argv, log))

    async def kill(self) -> None:
        """Kill -9 of the launcher alone."""
        await self._running.kill()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def command(self, *words: str) -> str:
        """Runs `vm-launcher WORDS` on this state directory; returns what it prints."""
        argv = (str(programs.TOOLS / "vm-launcher"), *words, "--state", str(self.state))
        return await call(argv)

    async def asked_status(self) -> Status:
        return Status.model_validate_json(await self.command("status", "--output", "json"))

    @property
    def status(self) -> Status:
        """What this launcher has written; empty until it has."""
        try:
            found = Status.model_validate(json.loads((self.state / "status.json").read_bytes()))
        except FileNotFoundError:
            return Status()
        return found if found.pid in (0, self._running.pid) else Status()

    @property
    def said(self) -> str:
        return self._running.log.read_text(errors="replace")

    def hypervisor(self) -> int:
        """The process id of the VM."""
        handle = Handle.model_validate_json((self.state / "handle.json").read_bytes())
        if handle.process is None:
            raise AssertionError("the VM does not run")
        return handle.process.pid

    async def idle(self, *, after_boot: int = 0, seconds: float = IDLE_SECONDS) -> Status:
        """Waits until the pilot of a boot later than `after_boot` is attached and has no job."""

        def ready() -> bool:
            self._running.check()
            now = self.status
            up = now.state == "running" and now.boots > after_boot
            return up and now.guest_state == "idle" and now.pid != 0

        await programs.eventually(ready, seconds, "an idle pilot in the VM")
        return self.status

    async def ended(self, seconds: float = 30.0) -> None:
        await programs.eventually(lambda: not self._running.running, seconds, "launcher's end")

    @property
    def _running(self) -> Process:
        if self.process is None:
            raise RuntimeError("the launcher was not started")
        return self.process


@asynccontextmanager
async def launcher(
    manager: ManagerProgram, secret: Path, image: Path, options: Sequence[str] = ()
) -> AsyncIterator[VmProgram]:
    """A started launcher with a state directory of its own; its VM is not necessarily up yet."""
    home = Path(tempfile.mkdtemp(prefix="vml-"))
    started = VmProgram(manager, home / "state", secret, image, options)
    try:
        await started.start()
        yield started
    finally:
        await started.stop()
        shutil.rmtree(home)


def image_with_door(work: Path, cache: Path, repository: Path) -> Path:
    """The image with an agent that obeys orders of its payloads: see `door`. Takes seconds."""
    from deploy.image.build import build_image

    package = work / "tree" / "copilot_agent"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "copilot_agent", package, ignore=ignored)
    shutil.copyfile(Path(__file__).with_name("door.py"), package / "door.py")
    main = package / "__main__.py"
    main.write_text(
        main.read_text().replace("import sys\n", "import sys\nimport copilot_agent.door\n", 1)
    )
    lines: list[str] = []
    build_image(cache / "image-build", work / "image", lines.append, agent=package)
    return work / "image"
