"""A driver without a hypervisor: its guest is a few lines of Python behind the same sockets.

For tests of whatever uses a driver, and as the shortest example of one. It can misbehave.
"""

import asyncio
import contextlib
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from copilot_agent.protocol import guest
from vm_launcher.drivers.base import (
    Capability,
    Driver,
    DriverError,
    Fingerprint,
    GuestStopped,
    Handle,
    HypervisorFailed,
    SavedState,
    SavedStateError,
    Usage,
    VmEvent,
    VmSpec,
)

_STATE = "memory.state"
PILOT_KEY = "A" * 43


@dataclass(frozen=True)
class Behaviour:
    """How the VM misbehaves; as it is here, it behaves."""

    boot_seconds: float = 0.0
    """Until the hello."""
    never_boots: bool = False
    start_error: str = ""
    crash_after_hello: bool = False
    """Each boot ends right after the guest's hello."""
    deaf: bool = False
    """The guest answers neither pause_soon nor stop."""


class FakeGuest:
    """The scripted guest of one boot."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._runs = asyncio.Event()
        self._runs.set()
        self._epoch = 1
        self.events: asyncio.Queue[VmEvent | None] = asyncio.Queue()
        self.started = time.monotonic()
        self.told_cpu_seconds: list[float] = []
        """What the launcher has said that the VM has cost."""

    def pause(self) -> None:
        self._runs.clear()

    def resume(self) -> None:
        self._runs.set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await asyncio.sleep(self._behaviour.boot_seconds)
            if not self._behaviour.never_boots:
                await self._hello(writer)
            while line := await reader.readline():
                await self._runs.wait()
                await self._answer(line, writer)

    async def _hello(self, writer: asyncio.StreamWriter) -> None:
        await self._say(writer, guest.Hello(epoch=self._epoch, agent_version="0.0.0"))
        if self._behaviour.crash_after_hello:
            self.events.put_nowait(HypervisorFailed("the fake hypervisor crashed"))
            self.events.put_nowait(None)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            message = guest.HOST_MESSAGE.validate_json(line)
        except ValidationError:
            return
        match message:
            case guest.Welcome():
                await self._say(writer, guest.Ready(pilot_key=PILOT_KEY))
            case guest.Enrolment():
                await self._say(writer, guest.State(state="idle"))
            case guest.PauseSoon() if not self._behaviour.deaf:
                await self._say(writer, guest.PauseOk())
            case guest.Resumed():
                self._epoch += 1
                await self._hello(writer)
            case guest.VmUsage():
                self.told_cpu_seconds.append(message.cpu_seconds)
            case guest.Drain(undo=False):
                await self._say(writer, guest.State(state="drained"))
            case guest.Stop() if not self._behaviour.deaf:
                await self._say(writer, guest.State(state="retired"))
            case _:
                pass

    async def _say(self, writer: asyncio.StreamWriter, message: guest.GuestMessage) -> None:
        writer.write(message.model_dump_json().encode() + b"\n")
        await writer.drain()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Port:
    """Listens at `path`; whoever connects gets `talk`."""

    def __init__(self, path: Path, talk: Talk) -> None:
        path.unlink(missing_ok=True)
        self._talk = talk
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._accepted: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for one in (self._listener, *self._accepted):
            one.close()

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        self._accepted.append(accepted)
        self._tasks.append(asyncio.create_task(self._serve(accepted)))

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            await self._talk(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # lets the transport close its socket


async def _sink(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


@dataclass(frozen=True)
class _Running:
    guest: FakeGuest
    ports: tuple[_Port, _Port]


class FakeDriver(Driver):
    name = "fake"

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self._running: dict[str, _Running] = {}

    async def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, "1", "fake")

    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.PAUSE, Capability.SAVE})

    async def create(self, spec: VmSpec) -> Handle:
        spec.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Handle(driver=self.name, spec=spec)

    async def start(self, handle: Handle) -> Handle:
        if self.behaviour.start_error:
            raise DriverError(self.behaviour.start_error, remedy="use another driver")
        await self._run(handle.spec)
        return handle.model_copy(update={"saved": None})

    async def pause(self, handle: Handle) -> Handle:
        self._vm(handle).guest.pause()
        return handle

    async def resume(self, handle: Handle) -> Handle:
        self._vm(handle).guest.resume()
        return handle

    async def save(self, handle: Handle) -> Handle:
        self._vm(handle)
        (handle.spec.directory / _STATE).write_text("fake")
        saved = SavedState(file=_STATE, fingerprint=_fingerprint(handle.spec), bytes=4)
        ended = await self.stop(handle, 0)
        return ended.model_copy(update={"saved": saved})

    async def restore(self, handle: Handle, spec: VmSpec) -> Handle:
        if handle.saved is None:
            raise SavedStateError("nothing was saved")
        if handle.saved.fingerprint != _fingerprint(spec):
            raise SavedStateError("the VM's settings have changed since it was saved")
        path = handle.spec.directory / handle.saved.file
        if not path.exists():
            raise SavedStateError("the state file is gone")
        path.unlink()
        running = await self._run(spec)
        running.guest.pause()
        return handle.model_copy(update={"spec": spec, "saved": None})

    async def stop(self, handle: Handle, timeout: float) -> Handle:  # noqa: ARG002
        running = self._running.pop(handle.spec.name, None)
        if running is None:
            return handle
        for port in running.ports:
            await port.close()
        running.guest.events.put_nowait(None)
        cpu_seconds = handle.cpu_seconds + time.monotonic() - running.guest.started
        return handle.model_copy(update={"cpu_seconds": cpu_seconds})

    async def destroy(self, handle: Handle) -> None:
        await self.stop(handle, 0)
        handle.spec.ctrl_socket.unlink(missing_ok=True)
        handle.spec.net_socket.unlink(missing_ok=True)
        shutil.rmtree(handle.spec.directory, ignore_errors=True)

    async def limit(self, handle: Handle, percent: int) -> None:
        guest = self._vm(handle).guest
        guest.resume() if percent else guest.pause()

    async def usage(self, handle: Handle) -> Usage:
        running = self._running.get(handle.spec.name)
        now = time.monotonic() - running.guest.started if running else 0.0
        return Usage(handle.cpu_seconds + now, memory_bytes=1 if running else 0, disk_bytes=1)

    async def events(self, handle: Handle) -> AsyncIterator[VmEvent]:
        queue = self._vm(handle).guest.events
        while (event := await queue.get()) is not None:
            yield event

    def guest(self, name: str) -> FakeGuest:
        return self._running[name].guest

    def crash(self, name: str) -> None:
        """The hypervisor dies now."""
        self._end(name, HypervisorFailed("the fake hypervisor was made to crash"))

    def shut_down(self, name: str) -> None:
        """The guest ends now."""
        self._end(name, GuestStopped("the guest ended: guest-shutdown"))

    def _end(self, name: str, event: VmEvent) -> None:
        self._running[name].guest.events.put_nowait(event)
        self._running[name].guest.events.put_nowait(None)

    async def _run(self, spec: VmSpec) -> _Running:
        if spec.name in self._running:
            raise DriverError(f"VM {spec.name} runs already")
        guest = FakeGuest(self.behaviour)
        ports = (_Port(spec.ctrl_socket, guest.talk), _Port(spec.net_socket, _sink))
        self._running[spec.name] = _Running(guest, ports)
        return self._running[spec.name]

    def _vm(self, handle: Handle) -> _Running:
        running = self._running.get(handle.spec.name)
        if running is None:
            raise DriverError(f"VM {handle.spec.name} is not running")
        return running


def _fingerprint(spec: VmSpec) -> dict[str, str]:
    changing = {"directory", "ctrl_socket", "net_socket"}
    return {"spec": spec.model_dump_json(exclude=changing)}
