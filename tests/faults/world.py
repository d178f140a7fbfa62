"""The processes of a cell: a manager, a link, pilots; each in a directory of the cell's own."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.processes import Process, call
from job_manager_adapter.client import Client
from tests.faults.database import Database, database
from tests.faults.hooks import POINTS, Hooks, Point
from tests.faults.jobs import SCHEDULED, Ledger
from tests.faults.matrix import Cell, Clockwork, Fault, Victim
from tests.faults.proxy import Link
from tests.harness import programs, scripted_vm, vm
from tests.harness.reference_adapter import FileScheduler

SETTINGS = """
[limits]
free_space_mib = {free_space}
[experiments.{name}]
adapter = "reference"
options = {{ path = "{path}", poll_seconds = 0.2 }}
"""
FREE_SPACE_MIB = 8
BOOT_SECONDS = 300.0
"""17 s on an idle computer; two cores may have much else to do."""
AGENT_OPTIONS = ("--cores", "4")
VM_OPTIONS = ("--cpus", "2", "--memory", "512", "--disk", "512")
VM_SETTINGS = f"[vm]\nnice = 0\nrestarts = 100\nboot_seconds_tcg = {BOOT_SECONDS}\n"
"""One launcher sees many VMs killed in a row, on a computer that is kept busy beside."""
SMALL_DISK_MIB = 512


@dataclass
class HookedManager(programs.ManagerProgram):
    """A manager that stops itself where a test wants it; pilots reach it over the link."""

    hooks: Hooks | None = None
    public_url: str = ""
    database: str = ""
    """The address of a PostgreSQL; else it is SQLite."""
    shared: Path | None = None
    """With other managers on that PostgreSQL."""

    @property
    def url(self) -> str:
        return self.public_url

    @property
    def own_url(self) -> str:
        """Past the link, whose faults must not blind an observer."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> tuple[str, ...]:
        words = super().command
        config = self.root / "manager.toml"
        public = f'[server]\npublic_url = "{self.public_url}"\n'
        text = config.read_text().replace("[server]\n", public, 1)
        store = f'[store]\nurl = "{self.database}"\n' if self.database else ""
        store += f'shared_dir = "{self.shared}"\n' if self.shared else ""
        config.write_text(text + store)
        variables = self.hooks.environment if self.hooks else {}
        return ("/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()), *words)

    async def enrolment(self) -> Path:
        if not self.database:
            return await super().enrolment()
        path = self.root / f"enrolment-{len(list(self.root.glob('enrolment-*')))}"
        path.touch(mode=0o600)
        secret = await call((*self.command, "enrolment", "create", "--output", "quiet"))
        path.write_text(secret.strip())
        return path


def stopped(pid: int) -> bool:
    """By SIGSTOP."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] == "T"


def owns(pid: int, port: int) -> bool:
    """Whether this process has the TCP socket with this local port of loopback."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    # an older connection from that port may stand there too
    sockets = {f"socket:[{one[9]}]" for one in lines if one[1] == f"0100007F:{port:04X}"}
    return not sockets.isdisjoint(open_files(pid))


def open_files(pid: int) -> set[str]:
    found = set()
    with suppress(FileNotFoundError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(entry.readlink()))
    return found


def send(process: Process | None, number: signal.Signals) -> None:
    """To this process alone."""
    if process is not None and process.running:
        os.kill(process.pid, number)


@asynccontextmanager
async def small_disk(directory: Path) -> AsyncIterator[None]:
    """A disk of its own in this directory; needs root."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={SMALL_DISK_MIB}m,mode=0700"
    await call(("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)))
    try:
        yield
    finally:
        await call(("umount", str(directory)))


@dataclass
class World:
    root: Path
    link: Link
    manager: HookedManager
    observed: HookedManager
    """The one that `client` asks: where there are two, the one that is no victim."""
    scheduler: FileScheduler
    ledger: Ledger
    client: Client
    agents: list[programs.AgentProgram] = field(default_factory=list)
    host: vm.VmProgram | None = None
    """Where pilots run in a VM, there are no `agents`."""
    database: Database | None = None
    """Where it is no file of the manager's own."""
    small: Victim | None = None
    """Whose directory is a small disk of its own."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start_pilot(self) -> None:
        """The first one, or another beside it."""
        if self.ledger.in_a_vm:
            await self._start_host()
        else:
            await (await self.add_agent()).start()

    async def add_agent(self) -> programs.AgentProgram:
        """Enrolled, not started."""
        state = self.root / f"agent-{len(self.agents)}"
        if self.small is Victim.AGENT:
            await self._stack.enter_async_context(small_disk(state))
        secret = await self.manager.enrolment()
        agent = programs.AgentProgram(self.manager, state, secret, AGENT_OPTIONS)
        self._stack.push_async_callback(agent.stop)
        self.agents.append(agent)
        return agent

    async def _start_host(self) -> None:
        secret = await self.manager.enrolment()
        home = Path(tempfile.mkdtemp(prefix="vml-"))  # short enough for a socket
        self._stack.callback(shutil.rmtree, home)
        image = scripted_vm.built_image()
        (config := home / "launcher.toml").write_text(VM_SETTINGS)
        options = (*VM_OPTIONS, "--config", str(config))
        self.host = vm.VmProgram(self.manager, home / "state", secret, image, options)
        self._stack.push_async_callback(self._stop_host, self.host)
        await self.host.start()

    async def _stop_host(self, host: vm.VmProgram) -> None:
        await host.stop()
        left = vm.left_behind(host.state) - {"receipts.jsonl"}
        if left or programs.naming(host.state):
            raise AssertionError(f"the launcher left {left}, {programs.naming(host.state)}")

    @property
    def receipt_files(self) -> list[Path]:
        """Volunteers' disks."""
        states = [self.host.state] if self.host else [agent.state for agent in self.agents]
        return [state / "receipts.jsonl" for state in states]

    def arm(self, points: Iterable[Point], text: str) -> None:
        for point in points:
            self._hooks.arm(point, text)

    async def at_point(self, points: Sequence[Point]) -> None:
        """Any of these; the others are disarmed."""

        def there() -> bool:
            process = self.manager.process
            reached = any(self._hooks.reached(point) for point in points)
            return reached and process is not None and stopped(process.pid)

        await programs.eventually(there, 300, f"the manager at {points[0].name}")
        self._hooks.clear()

    @property
    def _hooks(self) -> Hooks:
        if self.manager.hooks is None:
            raise RuntimeError("this manager has no hooks")
        return self.manager.hooks

    def is_substitute(self, port: int) -> bool:
        """A pilot that came after the first: the link does nothing to it."""
        later = (agent.process for agent in self.agents[1:])
        return any(one is not None and one.running and owns(one.pid, port) for one in later)

    def wake(self) -> None:
        """Whatever was stopped goes on, or it could not end."""
        for process in (self.manager.process, *(agent.process for agent in self.agents)):
            send(process, signal.SIGCONT)
        if self.database is not None and self.database.runs:
            self.database.signal(signal.SIGCONT)
        if self.host is not None:
            send(self.host.process, signal.SIGCONT)
            with suppress(FileNotFoundError, AssertionError, ProcessLookupError):
                os.kill(self.host.hypervisor(), signal.SIGCONT)

    async def close(self) -> None:
        self.wake()
        self.link.go_on()
        await self._stack.aclose()


@asynccontextmanager
async def world(root: Path, cell: Cell) -> AsyncIterator[World]:
    """A manager and its link as the cell needs them. Nothing of them runs afterwards."""
    root.mkdir(parents=True)
    scheduler, ledger = FileScheduler(root / "scheduler.json"), Ledger(root, cell.in_a_vm)
    await ledger.schedule(scheduler)
    try:
        async with AsyncExitStack() as stack:
            link = Link(port := programs.free_port(), lambda port: made.is_substitute(port))
            await link.start()
            stack.push_async_callback(link.stop)
            managers = [_manager(root / "manager", link, port, scheduler, cell.clockwork)]
            if cell.two_managers:
                other = programs.free_port()
                managers += [_manager(root / "other", link, other, scheduler, cell.clockwork)]
            store: Database | None = None
            if cell.victim is Victim.DATABASE or cell.two_managers:
                store = await stack.enter_async_context(database())
                for each in managers:
                    each.database, each.shared = store.address, root / "shared"
            small = cell.victim if cell.fault is Fault.DISKFULL else None
            if small is Victim.MANAGER:
                await stack.enter_async_context(small_disk(managers[0].data))
            for each in managers:
                stack.push_async_callback(each.stop)
                await each.start()
            client = Client(managers[-1].own_url, managers[0].token)
            await stack.enter_async_context(client)
            made = World(root, link, managers[0], managers[-1], scheduler, ledger, client)
            made.database, made.small = store, small
            stack.push_async_callback(made.close)
            yield made
    finally:
        await programs.eventually(lambda: not programs.naming(root), 5, f"the end of all of {root}")


def _manager(
    root: Path, link: Link, port: int, scheduler: FileScheduler, clockwork: Clockwork
) -> HookedManager:
    return HookedManager(
        root,
        heartbeat_seconds=clockwork.heartbeat,
        lease_seconds=clockwork.lease,
        settings=SETTINGS.format(name=SCHEDULED, path=scheduler.path, free_space=FREE_SPACE_MIB),
        port=port,
        hooks=Hooks(root.with_name(f"{root.name}-hooks"), POINTS),
        public_url=link.url,
    )
