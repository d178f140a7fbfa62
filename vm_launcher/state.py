"""The launcher's state directory: its lock, what outlives a run, and the status for others."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from vm_launcher.drivers.base import Handle

_SOCKET_PATH_BYTES = 100
"""UNIX sockets' paths are bounded by 107 bytes."""

_ELSEWHERE = "vm-launcher-sockets-"


class StateError(CopilotError):
    code = ErrorCode.CONFLICT


class StateLockedError(StateError):
    """Another launcher runs on this state directory."""


class Status(BaseModel):
    """status.json, and the answer of `vm-launcher status`. Times are Unix times."""

    model_config = ConfigDict(extra="ignore")

    version: int = 1
    pid: int = 0
    state: str = "absent"
    finishing: bool = False
    started: float = 0.0
    updated: float = 0.0
    manager: str = ""
    driver: str = ""
    hypervisor_version: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    image_sha256: str = ""
    image_serial: int = 0
    kernel: str = ""
    boots: int = 0
    vm_boot_seconds: float | None = None
    """From the start of the hypervisor to the guest's hello, of the latest boot."""
    ready_seconds: float | None = None
    """From the start of the hypervisor to `ready`."""
    restore_seconds: float | None = None
    pause_seconds: float | None = None
    """From the guest's pause_ok to the stopped VM, of the latest pause."""
    save_seconds: float | None = None
    agent_version: str = ""
    pilot: str = ""
    guest_state: str = ""
    guest_message: str = ""
    jobs_running: int = 0
    jobs: list[dict[str, Any]] = []
    jobs_succeeded: int = 0
    jobs_failed: int = 0
    cpus: int = 0
    cpu_percent: int = 100
    memory_mib: int = 0
    disk_mib: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    network: dict[str, Any] = {}
    receipts: int = 0
    credit_granted: float = 0.0
    outcome: str = ""
    message: str = ""
    messages: Annotated[list[str], Field(max_length=20)] = []


class StateDirectory:
    """Holds the lock from `lock` until the process ends or `unlock`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.key = self.root / "launcher.key"
        self.receipts = self.root / "receipts.jsonl"
        self.status = self.root / "status.json"
        self.control = self.root / "control.sock"
        self.vm = self.root / "vm"
        self.console = self.root / "console.log"
        self._handle = self.root / "handle.json"
        self._lock = self.root / "launcher.lock"
        self._descriptor: int | None = None
        self._socket_directories: set[Path] = set()

    def lock(self) -> None:
        """Make the directory (0700) and take it; raises `StateLockedError` with the owner's pid."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"the state directory {self.root} cannot be used: {error.strerror}",
                remedy="name another one with --state, or correct its permissions",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise StateLockedError(
                f"another launcher (pid {owner}) uses {self.root}",
                remedy="stop it with vm-launcher stop, or give this one its own --state",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def load_handle(self) -> tuple[Handle, float] | None:
        """The VM that an earlier run left, and when that was written; None without one."""
        try:
            handle = Handle.model_validate_json(self._handle.read_bytes())
            if handle.spec.directory.resolve() == self.vm.resolve():
                return handle, self._handle.stat().st_mtime
        except FileNotFoundError:
            return None
        except ValidationError:
            pass
        # Another version's, or copied from another state directory, where that very VM may run:
        # nothing that we could go on with, or may remove.
        self._handle.unlink()
        return None

    def keep_handle(self, handle: Handle | None) -> None:
        if handle is None:
            self._handle.unlink(missing_ok=True)
        else:
            write_durably(self._handle, handle.model_dump_json().encode())

    def write_status(self, status: Status) -> None:
        part = self.status.with_suffix(".part")
        part.write_text(status.model_dump_json(indent=1))
        part.replace(self.status)

    def read_status(self) -> Status | None:
        try:
            return Status.model_validate_json(self.status.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def socket_directory(self) -> Path:
        """A private directory with a path short enough for sockets."""
        inside = self.root / "sockets"
        for made in (inside, Path(os.path.relpath(inside))):
            if len(os.fsencode(made)) + len("/ctrl") <= _SOCKET_PATH_BYTES:
                made.mkdir(mode=0o700, exist_ok=True)
                break
        else:
            made = Path(tempfile.mkdtemp(prefix=_ELSEWHERE))
        self._socket_directories.add(made)
        return made

    def keep_console(self, handle: Handle) -> None:
        """What the guest printed last, for whoever looks for the reason of a failure."""
        with contextlib.suppress(OSError):  # never written, or no room for it
            shutil.copyfile(handle.spec.directory / "console.log", self.console)

    def adopt(self, handle: Handle) -> None:
        """The sockets of an earlier run go with ours."""
        parent = handle.spec.ctrl_socket.parent.absolute()
        if parent == self.root / "sockets" or parent.name.startswith(_ELSEWHERE):
            self._socket_directories.add(parent)

    def remove_vm(self) -> None:
        """What is left of a VM that no handle tells of."""
        shutil.rmtree(self.vm, ignore_errors=True)

    def remove_sockets(self) -> None:
        for directory in self._socket_directories:
            shutil.rmtree(directory, ignore_errors=True)


def write_durably(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
