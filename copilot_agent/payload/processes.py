"""Processes as /proc shows them, and an enclosure made of them where there are no cgroups.

Source of the formats: proc(5).
"""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from resource import struct_rusage

from copilot_agent.payload.enclosure import Measured

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
MARK = "COPILOT_SCRATCH"
"""Variable by which an agent without cgroups and own uids finds its payloads' processes."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    session: int
    started: int
    """Clock ticks since boot; with the pid it names a process for ever."""
    cpu_seconds: float
    resident_bytes: int

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.started


def processes() -> Iterator[Process]:
    """All that live now; zombies are left out, as they hold nothing."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are wanted, not paths
        if name.isdecimal() and (process := read_process(int(name))) is not None:
            yield process


def read_process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 22 or fields[0] in (b"Z", b"X"):
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        resident_bytes=int(fields[21]) * _PAGE,
    )


def owner(pid: int) -> int | None:
    """The real uid. Not the owner of /proc/pid: that is root for a program nobody may read."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return None
    _, _, rest = text.partition(b"\nUid:")
    return int(rest.split(maxsplit=1)[0]) if rest else None


def proportional_bytes(pid: int) -> int:
    """Memory of a process, with what it shares with others counted in part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return 0
    _, _, rest = text.partition(b"\nPss:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if rest else 0


def marks(pid: int) -> dict[str, str]:
    """The COPILOT_ variables in the environment a process was started with; empty if not ours."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in text.split(b"\0") if item.startswith(b"COPILOT_"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_user(uid: int) -> None:
    """Kills all processes of a user that is not ours, at one stroke: no fork bomb outruns it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


Member = Callable[[Process], bool]


def owned_by(uid: int) -> Member:
    """Everything that runs under a uid which nothing else uses."""
    return lambda process: owner(process.pid) == uid


def marked(expected: dict[str, str]) -> Member:
    """Everything started with these COPILOT_ variables in its environment."""

    def member(process: Process) -> bool:
        found = marks(process.pid)
        return all(found.get(name) == value for name, value in expected.items())

    return member


@dataclass
class ProcessTable:
    """An enclosure by search: by uid where the payload has its own, else by descent and mark.

    A payload without its own uid that cleans its environment, leaves its session and loses its
    parent between two looks gets away; only cgroups or uids are tight.
    """

    member: Member
    memory_bytes: int
    """Below this sum, memory that is shared may be counted more than once."""
    uid: int | None = None
    """Everything of this user is killed at one stroke, whatever a look finds."""
    looks: int = 1
    """Looks that must find nothing before it is believed."""
    leader: int = 0
    known: dict[tuple[int, int], Process] = field(default_factory=dict)
    """Every process seen so far; dead ones keep their CPU time."""
    peak_bytes: int = 0
    empty_looks: int = 0

    entries: tuple[int, ...] = ()

    def started(self, pid: int) -> None:
        self.leader = pid

    def ended(self, used: struct_rusage) -> None:
        """Its peak counts if it is not what the first process inherited from the agent."""
        if used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            self.peak_bytes = max(self.peak_bytes, used.ru_maxrss * 1024)

    def living(self) -> list[Process]:
        """Processes inside now, found anew at each call."""
        everything = {process.pid: process for process in processes()}
        inside: dict[int, Process] = {}
        for process in sorted(everything.values(), key=lambda each: each.started):
            if self._belongs(process, inside):
                inside[process.pid] = process
                self.known[process.key] = process
        return list(inside.values())

    def _belongs(self, process: Process, inside: dict[int, Process]) -> bool:
        if process.pid == os.getpid():
            return False
        related = bool(self.leader) and (
            process.session == self.leader or process.parent in inside or process.key in self.known
        )
        return related or self.member(process)

    def signal(self, number: int) -> None:
        for process in self.living():
            send(process.pid, number)

    def kill(self) -> bool:
        """Stops all first, so that little is forked while it is being killed."""
        if self.uid is not None:
            kill_user(self.uid)
        living = self.living()
        for process in living:
            send(process.pid, signal.SIGSTOP)
        for process in living:
            send(process.pid, signal.SIGKILL)
        self.empty_looks = 0 if living else self.empty_looks + 1
        return self.empty_looks >= self.looks

    def measure(self, *, empty: bool = False) -> Measured:  # noqa: ARG002 - a look finds out
        living = self.living()
        resident = sum(process.resident_bytes for process in living)
        if resident > self.memory_bytes and len(living) > 1:
            resident = sum(proportional_bytes(process.pid) for process in living)
        self.peak_bytes = max(self.peak_bytes, resident)
        return Measured(
            cpu_seconds=sum(process.cpu_seconds for process in self.known.values()),
            memory_bytes=resident,
            peak_memory_bytes=self.peak_bytes,
            processes=len(living),
        )

    def remove(self) -> bool:
        self.known.clear()
        return True
