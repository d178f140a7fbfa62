"""What QEMU is handed: open files and listening sockets, as descriptors."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.errors import ErrorCode
from vm_launcher.drivers.base import DriverError, VmSpec
from vm_launcher.drivers.environment import plain_environment
from vm_launcher.drivers.qemu.command import Descriptors
from vm_launcher.drivers.qemu.process import Account

SCRATCH = "scratch.qcow2"


@dataclass(frozen=True)
class Opened:
    """QEMU's ends by number, and the launcher's ends of the same."""

    descriptors: Descriptors
    inherited: tuple[int, ...]
    qmp: socket.socket
    serial: socket.socket


@contextlib.contextmanager
def opened(spec: VmSpec, who: Account | None) -> Iterator[Opened]:
    """QEMU's ends are closed at the end of the block, the launcher's stay open unless it fails."""
    with contextlib.ExitStack() as qemus, contextlib.ExitStack() as ours:

        def pair() -> tuple[socket.socket, int]:
            mine, theirs = socket.socketpair()
            ours.callback(mine.close)
            qemus.callback(theirs.close)
            return mine, theirs.fileno()

        def keep(descriptor: int) -> int:
            qemus.callback(os.close, descriptor)
            return descriptor

        qmp, qmp_number = pair()
        serial, serial_number = pair()
        numbers = Descriptors(
            kernel=keep(_open_image(spec.kernel, who)),
            initrd=keep(_open_image(spec.initrd, who)),
            disks=tuple(keep(_open(disk.path, os.O_RDONLY)) for disk in spec.disks),
            scratch=keep(_open(spec.directory / SCRATCH, os.O_RDWR)),
            qmp=qmp_number,
            serial=serial_number,
            ctrl=qemus.enter_context(_listening(spec.ctrl_socket)).fileno(),
            net=qemus.enter_context(_listening(spec.net_socket)).fileno(),
        )
        yield Opened(numbers, _all(numbers), qmp, serial)
        ours.pop_all()


def _all(numbers: Descriptors) -> tuple[int, ...]:
    single = (numbers.kernel, numbers.initrd, numbers.scratch, numbers.qmp, numbers.serial)
    return (*single, numbers.ctrl, numbers.net, *numbers.disks)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError(
            f"cannot open {path}: {error.strerror}", remedy="check the image and its permissions"
        ) from error


def _open_image(path: Path, who: Account | None) -> int:
    """QEMU opens kernel and initrd once more through /dev/fd, with its own rights on the file."""
    descriptor = _open(path, os.O_RDONLY)
    if who is not None and not os.fstat(descriptor).st_mode & 0o004:
        os.close(descriptor)
        raise DriverError(
            f"{path} is not readable for the unprivileged user of the VM",
            remedy=f"chmod a+r {path}",
        )
    return descriptor


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise DriverError(f"cannot listen on {path}: {error}") from error
    return listener


async def create_scratch(spec: VmSpec) -> None:
    """A sparse qcow2 disk of the spec's size; one that is there already stays."""
    path = spec.directory / SCRATCH
    if path.exists():
        return
    part = path.with_suffix(".part")
    try:
        child = await asyncio.create_subprocess_exec(
            *["qemu-img", "create", "-q", "-f", "qcow2", str(part), f"{spec.disk_mib}M"],
            stdin=asyncio.subprocess.DEVNULL,
            env=plain_environment(),
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise DriverError("qemu-img is not installed", remedy="apt install qemu-utils") from None
    _, complaint = await child.communicate()
    if child.returncode != 0:
        raise DriverError(f"the scratch disk was not made: {complaint.decode().strip()}")
    part.replace(path)


def check_space(directory: Path, needed_bytes: int, purpose: str) -> None:
    """Raises `DriverError` (no_space) that says how much is needed and how much there is."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise DriverError(
            f"{purpose} needs {needed_bytes >> 20} MiB, "
            f"{free >> 20} MiB are free on the disk of {directory}",
            remedy="free some space, or give the VM a smaller disk (--disk) or memory (--memory)",
            code=ErrorCode.NO_SPACE,
        )
