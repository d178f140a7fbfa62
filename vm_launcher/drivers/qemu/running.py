"""One live QEMU process: its control connection, its logs, and what it says about itself."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from copilot_agent.protocol.guest import CTRL_PORT, NET_PORT
from vm_launcher.drivers.base import (
    DriverError,
    GuestStopped,
    HypervisorFailed,
    PortChanged,
    ProcessMark,
    VmEvent,
)
from vm_launcher.drivers.logfile import BoundedLog
from vm_launcher.drivers.qemu import process
from vm_launcher.drivers.qemu.limits import DutyCycle
from vm_launcher.drivers.qemu.qmp import Qmp

PORTS = {"ctrl": CTRL_PORT, "net": NET_PORT}
_STDERR_TAIL = 2000


class RunningVm:
    """Made by `QemuDriver` when the process has been started; `close` ends it."""

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        token: str,
        qmp: Qmp,
        serial: socket.socket,
        directory: Path,
        cpu_percent: int,
    ) -> None:
        self.mark: ProcessMark = process.mark(child.pid, token)
        self.qmp = qmp
        self.limit = DutyCycle(child.pid, cpu_percent)
        self.ending = False
        """An end was asked for, so the end of the process is no event."""
        self._child = child
        self._last_cpu = 0.0
        self._stderr = bytearray()
        self._queue: asyncio.Queue[VmEvent | None] = asyncio.Queue()
        self._asked_stop = False
        self._over = False
        self._exited = asyncio.Event()
        self._tasks = [
            asyncio.create_task(_pump(serial, BoundedLog(directory / "console.log"))),
            asyncio.create_task(self._read_stderr(BoundedLog(directory / "qemu.log"))),
            asyncio.create_task(self._watch_events()),
        ]
        self._watcher = asyncio.create_task(self._watch_exit())

    async def stop_cpus(self) -> None:
        await self.limit.off()
        self._asked_stop = True
        await self.qmp.execute("stop")

    async def resume_cpus(self) -> None:
        await self.qmp.execute("cont")
        self._asked_stop = False
        self.limit.on()

    def cpu_seconds(self) -> float:
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):  # gone: the last look has to do
                self._last_cpu = process.cpu_seconds(self.mark.pid)
        return self._last_cpu

    def resident_bytes(self) -> int:
        try:
            return 0 if self._exited.is_set() else process.resident_bytes(self.mark.pid)
        except ProcessLookupError:
            return 0

    def last_words(self) -> str:
        return self._stderr.decode(errors="replace").strip()

    async def events(self) -> AsyncIterator[VmEvent]:
        while (event := await self._queue.get()) is not None:
            yield event

    async def end(self, timeout: float) -> None:
        """Ask QEMU to quit, kill it after `timeout` seconds; returns when it is gone."""
        self.ending = True
        await self.limit.off()
        self.cpu_seconds()
        if timeout > 0 and not self._exited.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self.qmp.execute("quit")
                    await self._exited.wait()
            except (DriverError, TimeoutError):
                pass  # killed below
        if self._child.returncode is None:
            process.kill(self.mark, timeout=0)
        await self._watcher

    async def _watch_exit(self) -> None:
        status = await self._child.wait()
        self._exited.set()
        await self.limit.off()
        await self.qmp.close()
        await asyncio.wait(self._tasks[:2], timeout=2)  # its last words
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if not self.ending and not self._over:
            words = self.last_words().splitlines()[-3:]
            self._say(HypervisorFailed(f"QEMU ended with status {status}: {' / '.join(words)}"))
        self._queue.put_nowait(None)

    async def _watch_events(self) -> None:
        handlers: dict[str, Callable[[Mapping[str, object]], None]] = {
            "SHUTDOWN": self._on_shutdown,
            "GUEST_PANICKED": lambda _: self._finish(GuestStopped("the guest's kernel panicked")),
            "VSERPORT_CHANGE": self._on_port,
        }
        async for event in self.qmp.events:
            name, data = event.get("event"), event.get("data")
            if name == "STOP" and not self._asked_stop:
                await self._on_unasked_stop()
            elif isinstance(name, str) and name in handlers:
                handlers[name](data if isinstance(data, Mapping) else {})

    def _on_shutdown(self, data: Mapping[str, object]) -> None:
        if data.get("guest"):
            self._finish(GuestStopped(f"the guest ended: {data.get('reason', 'unknown')}"))

    def _on_port(self, data: Mapping[str, object]) -> None:
        port = PORTS.get(str(data.get("id")))
        if port is not None:
            self._say(PortChanged(port, bool(data.get("open"))))

    async def _on_unasked_stop(self) -> None:
        """Under KVM an internal error leaves QEMU alive and the guest dead."""
        try:
            status = (await self.qmp.execute("query-status")).get("status")
        except DriverError:
            return  # the watch over the process tells
        if status in ("internal-error", "io-error", "watchdog", "guest-panicked"):
            self._finish(HypervisorFailed(f"QEMU stopped the VM: {status}"))

    def _finish(self, event: VmEvent) -> None:
        if not self._over and not self.ending:
            self._over = True
            self._say(event)
            process.kill(self.mark, timeout=0)

    def _say(self, event: VmEvent) -> None:
        self._queue.put_nowait(event)

    async def _read_stderr(self, log: BoundedLog) -> None:
        assert self._child.stderr is not None  # noqa: S101 - spawned with a pipe
        try:
            while data := await self._child.stderr.read(4096):
                log.write(data)
                self._stderr = (self._stderr + data)[-_STDERR_TAIL:]
        finally:
            log.close()


async def _pump(source: socket.socket, log: BoundedLog) -> None:
    source.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, 16384):
            log.write(data)
    except ConnectionError:
        pass  # QEMU was killed with output under way
    finally:
        source.close()
        log.close()
