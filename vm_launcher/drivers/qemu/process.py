"""Starting and ending the hypervisor's process, and telling whether it is still ours."""

import asyncio
import contextlib
import ctypes
import os
import pwd
import resource
import select
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_launcher.drivers.base import DriverError, ProcessMark
from vm_launcher.drivers.environment import plain_environment

_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Account:
    """Whom a child runs as; `None` means as the launcher itself."""

    uid: int
    gid: int


def account(run_as: str) -> Account | None:
    """The unprivileged user for a launcher that is root; raises `DriverError` if there is none."""
    if os.geteuid() != 0:
        return None
    if run_as.isdecimal():
        found = Account(int(run_as), int(run_as))
    else:
        try:
            entry = pwd.getpwnam(run_as)
        except KeyError:
            raise DriverError(
                f"there is no user {run_as!r} to run the VM as", remedy="set run_as in the config"
            ) from None
        found = Account(entry.pw_uid, entry.pw_gid)
    if found.uid == 0:
        raise DriverError("a VM must not run as root", remedy="set run_as to another user")
    return found


async def spawn(
    command: Sequence[str],
    descriptors: Sequence[int],
    who: Account | None,
    nice: int,
    groups: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """A child in its own session that the kernel kills when the launcher's process ends.

    As `who` it has no other groups than `groups`.
    """
    identity: dict[str, object] = {}
    if who is not None:
        identity = {"user": who.uid, "group": who.gid, "extra_groups": groups}
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=plain_environment(),
            pass_fds=tuple(descriptors),
            start_new_session=True,
            preexec_fn=_in_the_child(nice),
            **identity,  # type: ignore[arg-type]
        )
    except FileNotFoundError:
        raise DriverError(
            f"{command[0]} is not installed", remedy="apt install qemu-system-x86 qemu-utils"
        ) from None


def kvm_groups() -> list[int]:
    """The group that may use /dev/kvm, for a VM whose launcher gives up root's rights."""
    with contextlib.suppress(OSError):
        status = Path("/dev/kvm").stat()
        if status.st_gid != 0 and status.st_mode & stat.S_IWGRP:
            return [status.st_gid]
    return []


def _in_the_child(nice: int) -> Callable[[], None]:
    """Runs after the change of user, which would clear the death signal, and before exec."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # the launcher died before the line above
                os._exit(1)
        os.nice(nice)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return prepare


def mark(pid: int, token: str) -> ProcessMark:
    return ProcessMark(pid=pid, start_ticks=int(_stat_fields(pid)[19]), token=token)


def is_alive(process: ProcessMark) -> bool:
    """Whether this very process, not a later one with its pid, still runs."""
    try:
        fields = _stat_fields(process.pid)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    same = int(fields[19]) == process.start_ticks and process.token.encode() in arguments
    return same and fields[0] not in ("Z", "X")


def kill(process: ProcessMark, timeout: float = 5.0) -> bool:
    """Kill it and wait until it is gone; False if there was nothing to kill."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], timeout)
        return True
    finally:
        os.close(descriptor)


def cpu_seconds(pid: int) -> float:
    """User and system time so far; raises `ProcessLookupError` when it is gone."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    return int(_stat_fields(pid)[21]) * _PAGE


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (the state), see proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return text.rpartition(")")[2].split()
