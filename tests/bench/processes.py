"""CPU time, memory and descent of processes, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes with all their threads and waited-for children."""
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            ticks += sum(int(each) for each in fields[11:15])
    return ticks / _TICK


def cpu_since(pids: Iterable[int], before: float) -> float:
    """Seconds spent since `cpu_seconds` said `before`; never 0, so that it can be divided by.

    What is too short for the kernel's ticks (10 ms) counts as one.
    """
    return max(cpu_seconds(pids) - before, 1 / _TICK)


def rss_bytes(pid: int, field: str = "VmRSS") -> int:
    """Resident memory; `field="VmHWM"` for its peak. Raises LookupError if the process is gone."""
    for line in _read(PROC / str(pid) / "status").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no {field}")


def forget_peak(pid: int) -> None:
    """Lets VmHWM begin anew (proc(5), clear_refs)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def descendants(pid: int) -> list[int]:
    """Living processes below `pid`, in no order."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, due = [], [pid]
    while due:
        below = children.get(due.pop(), [])
        found += below
        due += below
    return found


def tree(pid: int) -> list[int]:
    """`pid` and all below it."""
    return [pid, *descendants(pid)]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); none if it is gone."""
    return _read(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
