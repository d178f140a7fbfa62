"""Starts payloads from a small process of its own, forked before the agent grows.

A fork costs by the size of what forks, so the agent does not fork itself. It sends an order over
a socket, with the open files that are needed. The starter makes a child of the *agent*
(CLONE_PARENT), which confines itself and becomes the program. A pipe of the order's own tells the
agent its pid and then what went wrong, or, by closing at exec, that the program runs.

Little is imported here on purpose. Constants: Linux's prctl(2), unshare(2) and clone(2).
"""

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.payload.namespaces import Namespaces

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT = 0x8000
_MAX_FILES = 32
_MAX_MESSAGE = 1 << 15
_IN_A_FILE = b"!"
"""Instead of an order: it is too long for a message, and its file comes first."""
_OOM_SCORE = b"400"
"""When memory runs out in the guest, payloads go before the agent."""

CONFINING, RUNNING = "confining", "running"
"""What a new process was at when it failed."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.argtypes = [ctypes.c_long] * 6
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a new process becomes, apart from its files; a uid or gid of None: the agent's own."""

    argv: Sequence[str]
    executable: str
    environment: dict[str, str]
    directory: str
    uid: int | None
    gid: int | None
    limits: Sequence[tuple[int, int]]
    """Resources and their limits, soft and hard alike."""
    namespaces: Namespaces | None


class Starter:
    """The agent's end. Make it early, in the main thread: it ends with the thread that made it."""

    def __init__(self) -> None:
        self._pid, self._channel = _fork()

    @property
    def pid(self) -> int:
        return self._pid

    def send(self, order: Order, files: Sequence[int]) -> None:
        """`files`: the pipe for news, stdin, stdout, stderr, then what joins control groups.

        The news are "PID\\n" and, if it fails, "STEP ERRNO\\n". Raises OSError.
        """
        text = json.dumps(vars(order), default=vars).encode()
        if len(text) <= _MAX_MESSAGE:
            return self._send(text, files)
        written = os.memfd_create("order")
        try:
            os.write(written, text)
            return self._send(_IN_A_FILE, [written, *files])
        finally:
            os.close(written)

    def _send(self, message: bytes, files: Sequence[int]) -> None:
        try:
            socket.send_fds(self._channel, [message], files)
        except (BrokenPipeError, ConnectionResetError):  # somebody killed it
            self.close()
            self._pid, self._channel = _fork()
            socket.send_fds(self._channel, [message], files)

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Payloads that run are not touched."""
        self._channel.close()
        os.waitpid(self._pid, 0)


def no_new_privileges_known() -> bool:
    """Whether the kernel has the flag that keeps set-uid programs from helping a payload."""
    return bool(_prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0)


def _fork() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _settle(theirs, agent)
            _serve(theirs, agent)
        except BaseException as error:  # noqa: BLE001 - this process must never go on as an agent
            os.write(2, f"the starter of payloads ends: {error!r}\n".encode())
        finally:
            os._exit(1)
    theirs.close()
    return pid, ours


# ----- in the starter


def _settle(channel: socket.socket, agent: int) -> None:
    """Lets go of everything that is the agent's."""
    gc.freeze()  # no page is to be copied for a collection
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _end_with(agent)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are wanted, not paths
        if int(name) > 2 and int(name) != channel.fileno():
            with suppress(OSError):  # the directory itself, which was open while it was read
                os.close(int(name))
    if os.geteuid() == 0:  # the starter keeps what it has, but nothing that it starts gets any
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for capability in range(last + 1):
            _check(_prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")


def _serve(channel: socket.socket, agent: int) -> None:
    """Until the agent closes its end."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_FILES)
        if not message:
            os._exit(0)
        for handle in files:
            os.set_inheritable(handle, False)
        in_a_file = message == _IN_A_FILE
        news, *others = files[1:] if in_a_file else files
        try:
            order = _read(_content(files[0]) if in_a_file else message)
            if _clone() == 0:
                _become(order, news, others, agent)
        except OSError as error:
            os.write(news, f"0\n{CONFINING} {error.errno}\n".encode())
        finally:
            for handle in files:
                os.close(handle)


def _content(file: int) -> bytes:
    """Raises OSError."""
    return os.pread(file, os.fstat(file).st_size, 0)


def _read(text: bytes) -> Order:
    raw = json.loads(text)
    if raw["namespaces"] is not None:
        raw["namespaces"] = Namespaces(**raw["namespaces"])
    return Order(**raw)


def _clone() -> int:
    """As os.fork(), but the child is the agent's. Raises OSError."""
    number = _CLONE[os.uname().machine]
    pid = _syscall(number, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    return int(_check(pid, "clone"))


# ----- in the new process


def _become(order: Order, news: int, files: list[int], agent: int) -> None:
    step = CONFINING
    try:
        os.write(news, f"{os.getpid()}\n".encode())
        _confine(order, files, agent)
        step = RUNNING
        os.execve(order.executable, list(order.argv), order.environment)  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - this process must never go on as a starter
        number = error.errno if isinstance(error, OSError) else 0
        os.write(news, f"{step} {number or 0}\n".encode())
        if not number:
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(127)


def _confine(order: Order, files: list[int], agent: int) -> None:
    stdin, stdout, stderr, *entries = files
    for entry in entries:
        os.write(entry, b"0")
    _set_oom_score()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.umask(0o077)
    os.chdir(order.directory)
    if order.namespaces is not None:
        order.namespaces.enter()
    for handle, place in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(handle, place)
    for which, value in order.limits:
        resource.setrlimit(which, (value, value))
    _drop_privileges(order)
    _end_with(agent)


def _set_oom_score() -> None:
    """Only refused where the agent, without privileges, has a higher one: good enough."""
    try:
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(handle, _OOM_SCORE)
        os.close(handle)
    except PermissionError:
        pass


def _drop_privileges(order: Order) -> None:
    """The bounding set of capabilities is the starter's: empty."""
    if order.gid is not None:
        os.setgroups([])
        os.setresgid(order.gid, order.gid, order.gid)
    if order.uid is not None:
        os.setresuid(order.uid, order.uid, order.uid)
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _end_with(agent: int) -> None:
    """Killed as soon as the agent is gone; a change of user forgets that, so it comes last."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != agent:
        os._exit(1)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result
