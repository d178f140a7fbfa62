"""Managers and agents as real processes, on free ports, in a directory of the test's own."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.processes import Process, appear, call, program
from job_manager_adapter.client import Client
from job_manager_adapter.services.context import RandomIds, SystemClock
from job_manager_adapter.services.enrolments import Enrolments
from job_manager_adapter.store.sqlite import SqliteStore

TOOLS = Path(sys.executable).parent
EXPERIMENT = "demo"


PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, which could take one meanwhile."""
_left = iter(random.sample(PORTS, len(PORTS)))


def free_port() -> int:
    """A port that nobody listens on now, given once: its manager can come back on it."""
    for port in _left:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port among {PORTS}")


@dataclass
class ManagerProgram:
    """A manager that may be killed and started again on the same port and data."""

    root: Path
    heartbeat_seconds: float = 0.5
    lease_seconds: float = 5.0
    retry_seconds: float = 0.05
    settings: str = ""
    """More TOML for the settings file."""
    cpu: int | None = None
    """The only one that it may use."""
    port: int = field(default_factory=free_port)
    process: Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def command(self) -> tuple[str, ...]:
        config = self.root / "manager.toml"
        config.write_text(
            f"[server]\nport = {self.port}\n"
            f"[policy]\nheartbeat_seconds = {self.heartbeat_seconds}\n"
            f"lease_seconds = {self.lease_seconds}\nretry_seconds = {self.retry_seconds}\n"
            f'[experiments.{EXPERIMENT}]\nadapter = "queue"\n'
            f'[experiments.other]\nadapter = "queue"\n{self.settings}'
        )
        tool = str(TOOLS / "copilot-manager")
        return (tool, "--config", str(config), "--data-dir", str(self.data))

    async def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.data / "manager.url").unlink(missing_ok=True)
        log = self.root / f"manager-{len(list(self.root.glob('manager-*.log')))}.log"
        entered = program("manager", (*self.command, "serve"), log)
        self.process = await self._stack.enter_async_context(entered)
        if self.cpu is not None:
            os.sched_setaffinity(self.process.pid, {self.cpu})
        await appear(self.data / "manager.url", self.process)

    async def kill(self) -> None:
        """Kill -9, and see it gone."""
        if self.process is None:
            raise RuntimeError("the manager was not started")
        await self.process.kill()

    async def stop(self) -> None:
        await self._stack.aclose()

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    @property
    def said(self) -> str:
        """All that the managers on this data have logged."""
        logs = sorted(self.root.glob("manager-*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    async def user_token(self, role: str, experiment: str | None = None) -> str:
        words = ["token", "create", "--role", role, "--output", "quiet"]
        words += ["--experiment", experiment] if experiment else []
        return (await call((*self.command, *words))).strip()

    async def enrolment(self) -> Path:
        """A file with a new enrolment secret, made beside the manager as its command does it."""
        clock, store = SystemClock(), SqliteStore(self.data / "manager.db")
        await store.open()
        try:
            (view,) = await Enrolments(store, clock, RandomIds(clock)).create()
        finally:
            await store.close()
        path = self.root / f"enrolment-{len(list(self.root.glob('enrolment-*')))}"
        path.touch(mode=0o600)
        path.write_text(view.secret or "")
        return path


@asynccontextmanager
async def manager(root: Path, **options: float | str | None) -> AsyncIterator[ManagerProgram]:
    """A running manager; options are those of `ManagerProgram`."""
    running = ManagerProgram(root, **options)  # type: ignore[arg-type]
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


@asynccontextmanager
async def client(running: ManagerProgram, token: str | None = None) -> AsyncIterator[Client]:
    async with Client(running.url, token or running.token) as opened:
        yield opened


@dataclass
class AgentProgram:
    """A `copilot-agent run` outside a VM, in its own state directory."""

    manager: ManagerProgram
    state: Path
    secret: Path
    options: Sequence[str] = ()
    process: Process | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        argv = (
            *(str(TOOLS / "copilot-agent"), "run", "--manager", self.manager.url),
            *("--enrolment-file", str(self.secret), "--state", str(self.state)),
            *self.options,
        )
        self.state.parent.mkdir(parents=True, exist_ok=True)
        count = len(list(self.state.parent.glob(f"{self.state.name}-*.log")))
        log = self.state.with_name(f"{self.state.name}-{count}.log")
        self.process = await self._stack.enter_async_context(program("agent", argv, log))

    async def kill(self) -> None:
        if self.process is None:
            raise RuntimeError("the agent was not started")
        await self.process.kill()

    async def stop(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def agent(
    running: ManagerProgram, name: str = "agent", options: Sequence[str] = ("--cores", "2")
) -> AsyncIterator[AgentProgram]:
    """A running agent with an enrolment of its own; not necessarily attached yet."""
    secret = await running.enrolment()
    started = AgentProgram(running, running.root / name, secret, options)
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def naming(path: Path) -> list[int]:
    """Living processes with `path` in their command line, such as a QEMU with its files there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(entry.parent.name)
        with suppress(FileNotFoundError, ProcessLookupError):
            if str(path).encode() in entry.read_bytes() and alive(pid):
                found.append(pid)
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def eventually(condition: object, seconds: float = 20.0, what: str = "condition") -> None:
    """Wait until `condition()` (sync or async) holds; fail saying `what` after `seconds`."""
    if not callable(condition):
        raise TypeError("condition must be callable")
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        if held:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)
