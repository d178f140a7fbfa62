"""A virtio-serial port as the guest sees it. Standard library only: this is on the boot path.

A port differs from a socket: it opens once, a read gives at most 4096 bytes and a write takes at
most 32768, and while the launcher is away it reports POLLHUP for ever and reads empty.
"""

import os
import select
import socket
from pathlib import Path

CTRL_PORT = "org.copilot.ctrl"
NET_PORT = "org.copilot.net"
_PORTS = Path("/sys/class/virtio-ports")
_READ_BYTES = 256 * 1024
_WRITE_BYTES = 32768


class PortNotFoundError(FileNotFoundError):
    """This machine has no such port: not a VM, or one started without it."""


def find_port(name: str, ports: Path = _PORTS) -> Path:
    """The device file of the port called `name`; there is no udev to make a link.

    Raises PortNotFoundError.
    """
    for entry in sorted(ports.glob("*/name")):
        if entry.read_text().strip() == name:
            return Path("/dev") / entry.parent.name
    raise PortNotFoundError(f"no virtio-serial port is called {name}")


class Port:
    """One non-blocking descriptor for both ways; owned and closed by this object."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._space = memoryview(bytearray(_READ_BYTES))

    @classmethod
    def open(cls, name: str) -> "Port":
        """Raises PortNotFoundError, and OSError where the port is open already."""
        return cls(os.open(find_port(name), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    @classmethod
    def over(cls, connected: socket.socket) -> "Port":
        """The same over a connected stream socket, which it takes over."""
        return cls(connected.detach())

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes | None:
        """All that has arrived, up to 256 KiB; None: nothing yet; empty: the host is absent."""
        filled = 0
        while filled < _READ_BYTES:
            try:
                got = os.readv(self._fd, [self._space[filled:]])
            except BlockingIOError:
                return bytes(self._space[:filled]) if filled else None
            if not got:
                break
            filled += got
        return bytes(self._space[:filled])

    def write(self, data: memoryview) -> int:
        """How many bytes were taken; 0 where the host is absent or does not read."""
        written = 0
        while written < len(data):
            try:
                written += os.write(self._fd, data[written : written + _WRITE_BYTES])
            except BlockingIOError:
                break
        return written

    def present(self) -> bool:
        """Whether the host's end is connected."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not any(flags & (select.POLLHUP | select.POLLERR) for _, flags in poll.poll(0))

    def wait_writable(self, seconds: float) -> None:
        """Blocks until a write may succeed, in any case not longer than `seconds`."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
