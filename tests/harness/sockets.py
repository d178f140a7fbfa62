"""Where processes listen, as the kernel says it."""

import ipaddress
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""States in /proc/net: TCP's LISTEN; a UDP socket that is bound and not connected."""

_ESTABLISHED = "01"


class Listener(NamedTuple):
    """One listening socket."""

    protocol: str
    address: str
    port: int


def family(leader: int) -> list[int]:
    """`leader` and its living descendants, also those that opened sessions of their own."""
    parents = dict(_processes())
    return [pid for pid in parents if leader in _ancestry(pid, parents)]


def listeners(pids: list[int]) -> list[Listener]:
    """All on which these processes wait for somebody."""
    owned = {inode for pid in pids for inode in _inodes(pid)}
    return [
        found
        for protocol in _LISTENING
        for inode, found in _waiting(protocol)
        if f"socket:[{inode}]" in owned
    ]


def connections(pid: int, port: int) -> int:
    """How many established TCP connections this process has to somebody's `port`."""
    owned = set(_inodes(pid))
    tables = (path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists())
    lines = (line.split() for table in tables for line in table.read_text().splitlines()[1:])
    return sum(
        f"socket:[{fields[9]}]" in owned
        for fields in lines
        if fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port
    )


def _processes() -> Iterator[tuple[int, int]]:
    """Each process and its parent."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])


def _ancestry(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid:
        yield pid
        pid = parents.get(pid, 0)


def _inodes(pid: int) -> Iterator[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                yield str(descriptor.readlink())


def _waiting(protocol: str) -> Iterator[tuple[str, Listener]]:
    table = Path("/proc/net") / protocol
    if not table.exists():  # a kernel without IPv6
        return
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENING[protocol]:
            address, port = fields[1].split(":")
            yield fields[9], Listener(protocol, _address(address), int(port, 16))


def _address(text: str) -> str:
    """From the kernel's form: hexadecimal words of 32 bits in the machine's own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))
