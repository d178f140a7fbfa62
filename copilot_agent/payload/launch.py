"""Starts a payload's first process: everything is prepared before the fork, little done after it.

A process of its own session enters its enclosure, gives up every privilege and then becomes the
program. Constants: Linux's prctl(2) and unshare(2).
"""

import ctypes
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.payload.enclosure import MIB
from copilot_agent.payload.namespaces import Namespaces
from copilot_agent.payload.processes import MARK
from copilot_agent.payload.watchdog import Limits
from copilot_agent.protocol.job import FailureClass, JobSpec

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
PINNED_CPU = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-AVX_Usable"
"""Makes glibc's mathematics the same on every x86-64 CPU (docs: reproducible payloads)."""

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_OPEN_FILES = 4096
_OOM_SCORE = b"400"
"""When memory runs out in the guest, payloads go before the agent."""

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


class PayloadStartError(Exception):
    """The payload never ran; `failure_class` says whose fault that is."""

    def __init__(
        self, message: str, failure_class: FailureClass = FailureClass.ENVIRONMENT
    ) -> None:
        super().__init__(message)
        self.message = message
        self.failure_class = failure_class


ResourceLimit = tuple[int, int]
"""A resource and its limit, soft and hard alike."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a payload runs as; None: as the agent itself."""

    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """All that one start needs."""

    argv: Sequence[str]
    executable: str
    environment: Mapping[str, str]
    directory: Path
    identity: Identity
    entries: tuple[int, ...]
    limits: tuple[ResourceLimit, ...]
    namespaces: Namespaces | None
    stdin: int
    stdout: int
    stderr: int


def no_new_privileges_known() -> bool:
    """Whether the kernel has the flag that keeps set-uid programs from helping a payload."""
    return bool(_prctl(39, 0, 0, 0, 0) >= 0)  # PR_GET_NO_NEW_PRIVS


def spawn(start: Start) -> "subprocess.Popen[bytes]":
    """Returns once the program runs. Raises PayloadStartError."""
    last_capability = _last_capability() if os.geteuid() == 0 else -1

    def enter() -> None:
        """Runs between fork and exec: system calls only."""
        for entry in start.entries:
            os.write(entry, b"0")
        _set_oom_score()
        if start.namespaces is not None:
            start.namespaces.enter()
        for which, value in start.limits:
            resource.setrlimit(which, (value, value))
        _drop_privileges(start.identity, last_capability)

    try:
        return subprocess.Popen(
            list(start.argv),
            executable=start.executable,
            env=dict(start.environment),
            cwd=start.directory,
            stdin=start.stdin,
            stdout=start.stdout,
            stderr=start.stderr,
            start_new_session=True,
            umask=0o077,
            close_fds=True,
            preexec_fn=enter,
        )
    except OSError as error:
        raise _refusal(start, error) from error
    except subprocess.SubprocessError as error:
        message = "the payload could not be confined; see the agent's log"
        raise PayloadStartError(message, FailureClass.HOST) from error


def _set_oom_score() -> None:
    """Only refused where the agent, without privileges, has a higher one: good enough."""
    try:
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(handle, _OOM_SCORE)
        os.close(handle)
    except PermissionError:
        pass


def _drop_privileges(identity: Identity, last_capability: int) -> None:
    for capability in range(last_capability + 1):
        _check(_prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    if identity.gid is not None:
        os.setgroups([])
        os.setresgid(identity.gid, identity.gid, identity.gid)
    if identity.uid is not None:
        os.setresuid(identity.uid, identity.uid, identity.uid)
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _refusal(start: Start, error: OSError) -> PayloadStartError:
    program = start.argv[0]
    match error:
        case FileNotFoundError() if Path(start.executable).exists():
            return PayloadStartError(f"program {program!r}: its interpreter is not in this guest")
        case FileNotFoundError():
            return PayloadStartError(f"program {program!r} was not found")
        case PermissionError():
            return PayloadStartError(f"program {program!r} is not executable")
        case BlockingIOError():
            return PayloadStartError(f"no process could be made: {error}", FailureClass.HOST)
        case _:
            return PayloadStartError(f"program {program!r} cannot be run: {error.strerror}")


def resource_limits(limits: Limits, *, enclosed: bool, own_uid: bool) -> tuple[ResourceLimit, ...]:
    """Limits that the kernel keeps for each process.

    Without control groups the data segment is bounded too, generously: it is there to stop a run
    away between two looks of the watchdog, which is the one that decides.
    """
    pairs = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.disk_mib * MIB,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
    }
    if not enclosed:
        pairs[resource.RLIMIT_DATA] = 2 * limits.memory_mib * MIB + 64 * MIB
        if own_uid:
            pairs[resource.RLIMIT_NPROC] = limits.processes + 2  # so that too many show
    return tuple((which, _within_hard(which, value)) for which, value in pairs.items())


def _within_hard(which: int, value: int) -> int:
    _, hard = resource.getrlimit(which)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def find_program(name: str, directory: Path, path: str) -> str:
    """The file to run: on the payload's PATH, or in its directory if there is a slash in the name.

    Raises PayloadStartError.
    """
    if "/" in name:
        return str(directory / name)
    for folder in path.split(":"):
        candidate = Path(folder or ".") / name
        if candidate.is_absolute() and _executable(candidate):
            return str(candidate)
    hint = f"; write './{name}' to run the file in the job's directory"
    exists = (directory / name).exists()
    raise PayloadStartError(f"program {name!r} was not found on PATH ({path}){hint * exists}")


def _executable(path: Path) -> bool:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)


def environment(
    *, job: str, attempt: int, spec: JobSpec, directory: Path, scratch: Path, proxy: str | None
) -> dict[str, str]:
    """What the payload sees; nothing of the agent's own environment is among it."""
    variables = {
        "PATH": DEFAULT_PATH,
        "HOME": str(directory),
        "TMPDIR": str(directory / TEMPORARY),
        "LANG": "C.UTF-8",
        "USER": "payload",  # a slot's uid may have no entry in the password file
        "LOGNAME": "payload",
        "COPILOT_CORES": str(spec.requirements.cores),
    }
    if spec.reproducible:
        variables["GLIBC_TUNABLES"] = PINNED_CPU
    if spec.network and proxy:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        variables |= dict.fromkeys(names, proxy)
    variables |= spec.environment
    return variables | {"COPILOT_JOB": job, "COPILOT_ATTEMPT": str(attempt), MARK: str(scratch)}


TEMPORARY = ".tmp"
"""The payload's TMPDIR, in its directory so that it counts as the payload's disk."""
