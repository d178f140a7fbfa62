"""How this computer is doing, read from /proc and the file systems; no program is started."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MIB = 1 << 20
MAX_DISKS = 32
MAX_PROCESSES = 64
MAX_INTERFACES = 32
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_FILE_BYTES = 1 << 18
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Load:
    """Of the last 1, 5 and 15 minutes."""

    minutes: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted device; in MiB, rounded up as `df` does."""

    device: str
    mounted_on: str
    total: int
    used: int
    available: int

    @property
    def percent(self) -> int:
        return -(-100 * self.used // max(1, self.used + self.available))


@dataclass(frozen=True, slots=True)
class Memory:
    """In MiB."""

    name: str
    """mem or swap."""
    used: int
    available: int


@dataclass(frozen=True, slots=True)
class Process:
    """Its name only: arguments may hold what is nobody's business."""

    pid: int
    name: str
    cpu_percent: float
    """Over its life, as `ps` has it."""
    cpu_seconds: int
    memory_percent: float
    rss_kib: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one interface since the start, in bytes."""

    interface: str
    received: int
    sent: int


def load(proc: Path = PROC) -> Load:
    one, five, fifteen = (float(word) for word in _text(proc / "loadavg").split()[:3])
    return Load((one, five, fifteen))


def disks(proc: Path = PROC) -> list[Disk]:
    """Each device once, under its shortest name; what cannot be asked is left out."""
    places: dict[str, str] = {}
    for line in _text(proc / "self" / "mounts").splitlines():
        device, place = (_ESCAPED.sub(_sign, word) for word in f"{line} ".split(" ")[:2])
        if device.startswith("/dev/") and len(place) < len(places.get(device, place + "/")):
            places[device] = place
    found = (_disk(device, place) for device, place in places.items())
    return [disk for disk in found if disk is not None][:MAX_DISKS]


def _sign(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))


def _disk(device: str, place: str) -> Disk | None:
    try:
        system = os.statvfs(place)
    except OSError:
        return None
    used = system.f_blocks - system.f_bfree
    total, used, available = (
        -(-blocks * system.f_frsize // MIB) for blocks in (system.f_blocks, used, system.f_bavail)
    )
    return Disk(device, place, total, used, available)


def memory(proc: Path = PROC) -> list[Memory]:
    """What the system could take back at once counts as available."""
    kib = _meminfo(proc)
    return [
        _memory("mem", kib.get("MemTotal", 0), kib.get("MemAvailable", 0)),
        _memory("swap", kib.get("SwapTotal", 0), kib.get("SwapFree", 0)),
    ]


def _memory(name: str, total: int, available: int) -> Memory:
    return Memory(name, (total - available) // 1024, available // 1024)


def _meminfo(proc: Path) -> dict[str, int]:
    """In KiB."""
    lines = (line.split() for line in _text(proc / "meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}


def processes(proc: Path = PROC) -> list[Process]:
    """Of this user, without the kernel's and the dead; of too many those with most memory."""
    uptime = float(_text(proc / "uptime").split()[0])
    total = _meminfo(proc).get("MemTotal", 0)
    own = (process for process in _own(proc, uptime, total) if process.rss_kib)
    found = sorted(own, key=lambda process: -process.rss_kib)
    return sorted(found[:MAX_PROCESSES], key=lambda process: process.pid)


def _own(proc: Path, uptime: float, total_kib: int) -> Iterator[Process]:
    user = os.geteuid()
    for entry in proc.iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == user:
                yield _process(_text(entry / "stat"), uptime, total_kib)
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile


def _process(stat: str, uptime: float, total_kib: int) -> Process:
    """See proc(5); the name is in brackets and may hold any sign."""
    pid, _, rest = stat.partition(" (")
    name, _, rest = rest.rpartition(") ")
    fields = rest.split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    age = uptime - int(fields[19]) / _TICKS
    rss_kib = int(fields[21]) * _PAGE // 1024
    return Process(
        pid=int(pid),
        name=name,
        cpu_percent=100 * cpu / max(age, 1 / _TICKS),
        cpu_seconds=int(cpu),
        memory_percent=100 * rss_kib / max(1, total_kib),
        rss_kib=rss_kib,
    )


def traffic(proc: Path = PROC) -> list[Traffic]:
    found = []
    for line in _text(proc / "self" / "net" / "dev").splitlines()[2:]:
        interface, _, numbers = line.rpartition(":")
        counts = numbers.split()
        found.append(Traffic(interface.strip(), int(counts[0]), int(counts[8])))
    return found[:MAX_INTERFACES]


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_BYTES).decode("utf-8", "replace")
