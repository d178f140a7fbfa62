"""Prepares the start of a payload's first process and hears how it went; see starter."""

import asyncio
import os
import resource
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.payload.enclosure import MIB
from copilot_agent.payload.namespaces import Namespaces
from copilot_agent.payload.processes import MARK
from copilot_agent.payload.starter import RUNNING, Order, Starter
from copilot_agent.payload.watchdog import Limits
from copilot_agent.protocol.job import FailureClass, JobSpec

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
PINNED_CPU = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-AVX_Usable"
"""Makes glibc's mathematics the same on every x86-64 CPU (docs: reproducible payloads)."""

_OPEN_FILES = 4096


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


async def spawn(starter: Starter, start: Start) -> int:
    """The pid of the program, once it runs. Raises PayloadStartError and OSError.

    Must not be cancelled: the process would be nobody's.
    """
    order = Order(
        argv=start.argv,
        executable=start.executable,
        environment=dict(start.environment),
        directory=str(start.directory),
        uid=start.identity.uid,
        gid=start.identity.gid,
        limits=start.limits,
        namespaces=start.namespaces,
    )
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            starter.send(order, [writer, start.stdin, start.stdout, start.stderr, *start.entries])
        finally:
            os.close(writer)
        news = await _read_to_end(reader)
    finally:
        os.close(reader)
    return _started(start, news)


def _read_to_end(pipe: int) -> "asyncio.Future[str]":
    loop = asyncio.get_running_loop()
    end: asyncio.Future[str] = loop.create_future()
    pieces: list[bytes] = []

    def take() -> None:
        if piece := os.read(pipe, 4096):
            pieces.append(piece)
        else:
            loop.remove_reader(pipe)
            end.set_result(b"".join(pieces).decode())

    loop.add_reader(pipe, take)
    return end


def _started(start: Start, news: str) -> int:
    """What the starter and the new process said, see Starter.send."""
    first, _, rest = news.partition("\n")
    pid = int(first or 0)
    if pid and not rest:
        return pid
    if pid:
        os.waitpid(pid, 0)
    step, _, number = rest.strip().partition(" ")
    if step == RUNNING:
        raise _refusal(start, OSError(int(number), os.strerror(int(number))))
    why = os.strerror(int(number)) if number else "the process that starts payloads has ended"
    message = f"the payload could not be confined: {why}; see the agent's log"
    raise PayloadStartError(message, FailureClass.HOST)


def _refusal(start: Start, error: OSError) -> PayloadStartError:
    program = start.argv[0]
    match error:
        case FileNotFoundError() if _there(Path(start.executable)):
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
    exists = _there(directory / name)
    raise PayloadStartError(f"program {name!r} was not found on PATH ({path}){hint * exists}")


def _there(path: Path) -> bool:
    """Python 3.11's `Path.exists` raises for a name that is too long."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


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
