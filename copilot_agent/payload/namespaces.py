"""Namespaces of a payload's own: temporary files, shared memory, and no network unless asked for.

What a payload writes to /tmp or /dev/shm then counts as its disk and goes away with it, and a
payload without network reaches nothing that listens in the guest. Constants: Linux's
unshare(2), mount(2) and netdevice(7).
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NEW_MOUNTS, _NEW_IPC, _NEW_NETWORK = 0x00020000, 0x08000000, 0x40000000
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_SET_INTERFACE_FLAGS, _UP = 0x8914, 1
_LOOPBACK_UP = struct.pack("16sH14x", b"lo", _UP)
_SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - to be replaced

_libc = ctypes.CDLL(None, use_errno=True)
_mount = _libc.mount
_mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
_unshare = _libc.unshare
_unshare.argtypes = [ctypes.c_int]


@dataclass(frozen=True, kw_only=True)
class Namespaces:
    """What one payload gets; made before the fork."""

    temporary: str
    """Takes the place of `hidden`."""
    hidden: Sequence[str]
    network: bool
    """Whether it keeps the agent's network."""

    def enter(self) -> None:
        """Between fork and exec, still privileged. Raises OSError."""
        _check(_unshare(_NEW_MOUNTS | _NEW_IPC | (0 if self.network else _NEW_NETWORK)))
        _check(_mount(None, b"/", None, _RECURSIVE | _PRIVATE, None))
        for path in self.hidden:
            _check(_mount(os.fsencode(self.temporary), os.fsencode(path), None, _BIND, None))
        if not self.network:
            _bring_loopback_up()


def shared_directories(scratch: Path) -> tuple[str, ...]:
    """What payloads would share, but for what leads to their own directories in `scratch`."""
    real = scratch.resolve()
    hidden = (path for path in _SHARED if path.is_dir() and not real.is_relative_to(path))
    return tuple(map(str, hidden))


def namespaces_work() -> bool:
    """Tries them in a process that ends at once: containers often forbid them."""
    trial = Namespaces(temporary="/", hidden=(), network=False)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            trial.enter()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket.fileno(), _SET_INTERFACE_FLAGS, _LOOPBACK_UP)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
