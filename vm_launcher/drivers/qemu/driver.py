"""The QEMU driver. One process per VM, controlled through QMP on an inherited socket."""

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator

from vm_launcher.drivers.base import (
    Capability,
    Driver,
    DriverError,
    Fingerprint,
    Handle,
    SavedState,
    SavedStateError,
    Usage,
    VmEvent,
    VmSpec,
)
from vm_launcher.drivers.environment import plain_environment
from vm_launcher.drivers.qemu import clock, command, files, process
from vm_launcher.drivers.qemu.qmp import Qmp
from vm_launcher.drivers.qemu.running import RunningVm

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)
_STATE = "memory.state"
_MIGRATION_SECONDS = 120.0
_UNLIMITED = 1 << 40


class QemuDriver(Driver):
    name = "qemu"

    def __init__(self) -> None:
        self._running: dict[str, RunningVm] = {}
        self._version = ""
        self._tsc_khz: int | None = None

    async def fingerprint(self) -> Fingerprint:
        try:
            version = await self._qemu_version()
        except DriverError as error:
            return Fingerprint(self.name, "", command.MACHINE, error.message, error.remedy)
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            problem = f"QEMU {version} does not know the machine type {command.MACHINE}"
            return Fingerprint(self.name, version, command.MACHINE, problem, "install QEMU 7.2")
        if shutil.which("qemu-img") is None:
            problem, remedy = "qemu-img is not installed", "apt install qemu-utils"
            return Fingerprint(self.name, version, command.MACHINE, problem, remedy)
        return Fingerprint(self.name, version, command.MACHINE)

    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    async def create(self, spec: VmSpec) -> Handle:
        spec.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        needed = (spec.disk_mib + spec.memory_mib) << 20
        files.check_space(spec.directory, needed, "the VM (disk, and memory when it is saved)")
        await files.create_scratch(spec)
        return Handle(driver=self.name, spec=spec)

    async def start(self, handle: Handle) -> Handle:
        vm = await self._launch(handle.spec, incoming=False)
        vm.limit.on()
        return handle.model_copy(update={"process": vm.mark, "saved": None})

    async def pause(self, handle: Handle) -> Handle:
        await self._vm(handle).stop_cpus()
        return handle

    async def resume(self, handle: Handle) -> Handle:
        await self._vm(handle).resume_cpus()
        return handle

    async def save(self, handle: Handle) -> Handle:
        vm, spec = self._vm(handle), handle.spec
        await vm.stop_cpus()
        files.check_space(spec.directory, vm.resident_bytes(), "saving the VM's memory")
        size = await self._write_state(vm, spec)
        version = await self._qemu_version()
        saved = SavedState(
            file=_STATE,
            fingerprint=command.fingerprint(spec, version),
            bytes=size,
            tsc_khz=await self._guest_rate(spec),
        )
        ended = await self.stop(handle, timeout=5.0)
        return ended.model_copy(update={"saved": saved})

    async def restore(self, handle: Handle, spec: VmSpec) -> Handle:
        version = await self._qemu_version()
        saved = _usable(handle.saved, command.fingerprint(spec, version))
        if not clock.same_rate(saved.tsc_khz, await self._guest_rate(spec)):
            raise SavedStateError("the host's time-stamp counter has another rate now")
        path = handle.spec.directory / saved.file
        spec = spec.model_copy(update={"directory": handle.spec.directory})
        vm = await self._launch(spec, incoming=True)
        try:
            await _read_state(vm, path)
        except DriverError as error:
            await self.stop(handle.model_copy(update={"spec": spec}), timeout=0)
            raise SavedStateError(f"the saved VM did not load: {error.message}") from error
        path.unlink()  # from the first instruction on it no longer fits the scratch disk
        return handle.model_copy(update={"spec": spec, "process": vm.mark, "saved": None})

    async def stop(self, handle: Handle, timeout: float) -> Handle:
        vm = self._running.pop(handle.spec.name, None)
        cpu_seconds = handle.cpu_seconds
        if vm is not None:
            await vm.end(timeout)
            cpu_seconds += vm.cpu_seconds()
        elif handle.process is not None:
            await asyncio.to_thread(process.kill, handle.process)
        return handle.model_copy(update={"process": None, "cpu_seconds": cpu_seconds})

    async def destroy(self, handle: Handle) -> None:
        await self.stop(handle, timeout=0)
        spec = handle.spec
        for path in (spec.ctrl_socket, spec.net_socket):
            path.unlink(missing_ok=True)
        if spec.directory.exists():
            await asyncio.to_thread(shutil.rmtree, spec.directory)

    async def limit(self, handle: Handle, percent: int) -> None:
        await self._vm(handle).limit.change(percent)

    async def usage(self, handle: Handle) -> Usage:
        vm = self._running.get(handle.spec.name)
        return Usage(
            cpu_seconds=handle.cpu_seconds + (vm.cpu_seconds() if vm else 0.0),
            memory_bytes=vm.resident_bytes() if vm else 0,
            disk_bytes=_disk_bytes(handle.spec),
        )

    def events(self, handle: Handle) -> AsyncIterator[VmEvent]:
        return self._vm(handle).events()

    def _vm(self, handle: Handle) -> RunningVm:
        vm = self._running.get(handle.spec.name)
        if vm is None:
            raise DriverError(f"VM {handle.spec.name} is not running")
        return vm

    async def _guest_rate(self, spec: VmSpec) -> int | None:
        """Of the host's counter behind the guest's clock; KVM gives a clock of its own."""
        if spec.accelerator == "kvm":
            return None
        if self._tsc_khz is None:
            self._tsc_khz = await asyncio.to_thread(clock.host_tsc_khz)
        return self._tsc_khz

    async def _launch(self, spec: VmSpec, incoming: bool) -> RunningVm:
        if spec.name in self._running:
            raise DriverError(f"VM {spec.name} runs already")
        rate = await self._guest_rate(spec)
        who, token = process.account(spec.run_as), str(uuid.uuid4())
        with files.opened(spec, who) as ends:
            arguments = command.build(spec, ends.descriptors, token, incoming, rate)
            groups = process.kvm_groups() if spec.accelerator == "kvm" else []
            child = await process.spawn(
                [PROGRAM, *arguments], ends.inherited, who, spec.nice, groups
            )
            qmp = Qmp()
            vm = RunningVm(child, token, qmp, ends.serial, spec.directory, spec.cpu_percent)
        self._running[spec.name] = vm
        try:
            await qmp.connect(ends.qmp)
        except DriverError as error:
            del self._running[spec.name]
            await vm.end(timeout=0)
            raise DriverError(f"QEMU did not start: {vm.last_words() or error.message}") from error
        return vm

    async def _write_state(self, vm: RunningVm, spec: VmSpec) -> int:
        part = spec.directory / (_STATE + ".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            await _migrate(vm, descriptor, "migrate")
            await asyncio.to_thread(os.fsync, descriptor)
            size = os.fstat(descriptor).st_size
        except DriverError:
            part.unlink()
            raise
        finally:
            os.close(descriptor)
        part.replace(spec.directory / _STATE)
        return size

    async def _qemu_version(self) -> str:
        if not self._version:
            self._version = await _ask_version()
        return self._version


def _usable(saved: SavedState | None, wanted: dict[str, str]) -> SavedState:
    if saved is None:
        raise SavedStateError("nothing was saved")
    for what, value in wanted.items():
        if saved.fingerprint.get(what) != value:
            raise SavedStateError(f"the {what} has changed since the VM was saved")
    return saved


async def _read_state(vm: RunningVm, path: os.PathLike[str]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError(f"the state file cannot be read: {error.strerror}") from error
    try:
        await _migrate(vm, descriptor, "migrate-incoming")
    finally:
        os.close(descriptor)


async def _migrate(vm: RunningVm, descriptor: int, direction: str) -> None:
    """Move the VM's memory through an open file; 7.2 knows no `file:` and exec is denied."""
    capability = {"capability": "events", "state": True}
    await vm.qmp.execute("migrate-set-capabilities", {"capabilities": [capability]})
    await vm.qmp.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
    await vm.qmp.send_file(descriptor, "state")
    with vm.qmp.listen("MIGRATION") as heard:
        await vm.qmp.execute(direction, {"uri": "fd:state"})
        try:
            async with asyncio.timeout(_MIGRATION_SECONDS):
                status = await _migration_end(heard)
        except TimeoutError:
            raise DriverError("moving the VM's memory took more than two minutes") from None
    if status != "completed":
        raise DriverError(f"QEMU says that the move of the VM's memory {status}")


async def _migration_end(heard: AsyncIterator[object]) -> str:
    async for event in heard:
        data = event.get("data") if hasattr(event, "get") else None
        status = data.get("status") if isinstance(data, dict) else None
        if status in ("completed", "failed", "cancelled"):
            return str(status)
    return "ended without a word"


async def _ask_version() -> str:
    try:
        child = await asyncio.create_subprocess_exec(
            *(PROGRAM, "--version"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=plain_environment(),
        )
    except FileNotFoundError:
        raise DriverError(
            f"{PROGRAM} is not installed", remedy="apt install qemu-system-x86 qemu-utils"
        ) from None
    output, _ = await child.communicate()
    found = re.search(rb"version (\d+\.\d+\.\d+)", output)
    if found is None:
        raise DriverError(f"{PROGRAM} --version says nothing that is understood")
    return found.group(1).decode()


def _disk_bytes(spec: VmSpec) -> int:
    if not spec.directory.is_dir():
        return 0
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(spec.directory))
