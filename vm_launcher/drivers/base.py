"""What every hypervisor driver does, and the words for it.

A driver is given a `VmSpec` and answers with a `Handle`: a versioned, JSON-serialisable note that
outlives the launcher, so that the next start finds and reclaims what the last one left behind.
Each call that changes the VM returns the handle to keep from then on.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from copilot_agent.protocol.base import Sha256, Strict
from copilot_agent.protocol.errors import CopilotError, ErrorCode

VmName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Accelerator = Literal["kvm", "tcg"]


class DriverError(CopilotError):
    """The hypervisor did not do what was asked."""

    code = ErrorCode.UNAVAILABLE


class SavedStateError(DriverError):
    """A saved VM cannot go on with this hypervisor, command line or image; start a fresh one."""

    code = ErrorCode.CONFLICT


class Disk(Strict):
    """A read-only disk; the guest finds it by its serial."""

    serial: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,20}$")]
    path: Path


class VmSpec(Strict):
    """One VM, hypervisor apart."""

    name: VmName
    directory: Path
    """Private to this VM; made by `create`, removed by `destroy`."""
    ctrl_socket: Path
    net_socket: Path
    """Where the host's ends of the two guest ports listen; at most 107 bytes each."""
    kernel: Path
    initrd: Path
    command_line: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[\x20-\x7e]*$")]
    disks: Annotated[tuple[Disk, ...], Field(max_length=8)] = ()
    image_sha256: Sha256
    cores: Annotated[int, Field(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Field(ge=64, le=1 << 22)] = 512
    disk_mib: Annotated[int, Field(ge=1, le=1 << 26)] = 1024
    """Bound of the throw-away scratch disk."""
    accelerator: Accelerator = "tcg"
    cpu_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of each core that the VM may use; 100 is no limit."""
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    run_as: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,32}$")] = "nobody"
    """User, by name or number, that the hypervisor runs as when the launcher is root."""


class ProcessMark(Strict):
    """Tells one process from all others, also after its pid was used again."""

    pid: Annotated[int, Field(gt=1)]
    start_ticks: Annotated[int, Field(ge=0)]
    """Field 22 of /proc/PID/stat."""
    token: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{8,64}$")]
    """A unique argument on its command line."""


class SavedState(Strict):
    """A VM's memory in a file."""

    file: str
    fingerprint: dict[str, str]
    """What has to be equal for a restore to work."""
    bytes: int
    tsc_khz: Annotated[int, Field(gt=0)] | None = None
    """The rate of the host's counter by which the guest's clock goes, if it does."""


class Handle(Strict):
    """What is known of one VM, for the next call and for the next start of the launcher."""

    version: Literal[1] = 1
    driver: str
    spec: VmSpec
    process: ProcessMark | None = None
    saved: SavedState | None = None
    cpu_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Of hypervisor processes that have ended."""


class Capability(StrEnum):
    PAUSE = "pause"
    SAVE = "save"
    CPU_LIMIT = "cpu_limit"


@dataclass(frozen=True)
class Fingerprint:
    """Which hypervisor this is."""

    driver: str
    version: str
    machine: str
    problem: str = ""
    """Why it cannot be used; empty if it can."""
    remedy: str = ""


@dataclass(frozen=True)
class Usage:
    """As seen from outside the VM."""

    cpu_seconds: float
    """User and system time of all its hypervisor processes so far, over saves and restores."""
    memory_bytes: int
    """Resident now."""
    disk_bytes: int
    """Taken by the VM's directory now."""


@dataclass(frozen=True)
class GuestStopped:
    """The guest shut down, restarted or panicked; the VM is over."""

    reason: str


@dataclass(frozen=True)
class HypervisorFailed:
    """The hypervisor died or cannot go on; `reason` has its last words."""

    reason: str


@dataclass(frozen=True)
class PortChanged:
    """The guest opened or closed its end of a port."""

    port: str
    open: bool


VmEvent = GuestStopped | HypervisorFailed | PortChanged


class Driver(ABC):
    """One hypervisor. Errors are `DriverError`s with a remedy."""

    name: ClassVar[str]

    @abstractmethod
    async def fingerprint(self) -> Fingerprint: ...

    @abstractmethod
    def capabilities(self) -> frozenset[Capability]: ...

    @abstractmethod
    async def create(self, spec: VmSpec) -> Handle:
        """Make the VM's directory and disks. Twice is as good as once."""

    @abstractmethod
    async def start(self, handle: Handle) -> Handle:
        """Boot. Returns once the hypervisor runs and both sockets accept connections."""

    @abstractmethod
    async def pause(self, handle: Handle) -> Handle: ...

    @abstractmethod
    async def resume(self, handle: Handle) -> Handle: ...

    @abstractmethod
    async def save(self, handle: Handle) -> Handle:
        """Stop the VM, write its memory to its directory and end the hypervisor."""

    @abstractmethod
    async def restore(self, handle: Handle, spec: VmSpec) -> Handle:
        """Go on from a save in a new process, paused until `resume`.

        Raises `SavedStateError` when hypervisor, command line or image differ from the save's.
        """

    @abstractmethod
    async def stop(self, handle: Handle, timeout: float) -> Handle:
        """End the hypervisor, by force after `timeout` seconds; files stay. Twice is fine."""

    @abstractmethod
    async def destroy(self, handle: Handle) -> None:
        """End the hypervisor at once, remove every file. Works for another launcher's handle."""

    @abstractmethod
    async def limit(self, handle: Handle, percent: int) -> None:
        """Share of each core that a running VM may use from now on.

        0 lets it rest until the next change, without a word to the guest, whose clocks go on.
        """

    @abstractmethod
    async def usage(self, handle: Handle) -> Usage: ...

    @abstractmethod
    def events(self, handle: Handle) -> AsyncIterator[VmEvent]:
        """Until the VM is over; the last event is `GuestStopped` or `HypervisorFailed`.

        After an asked-for stop, save or destroy the stream ends without one.
        """
