"""Control groups, version 2 or 1, as enclosures: one group per attempt.

Source of file names and formats: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from resource import struct_rusage
from typing import Protocol

from copilot_agent.payload.enclosure import Bounds, Enclosure, Measured
from copilot_agent.payload.group_files import (
    make_group,
    members,
    number,
    numbers,
    remove_group,
    subdirectories,
    write_file,
)
from copilot_agent.payload.processes import send

log = logging.getLogger(__name__)

_PERIOD = 100_000
"""Period of a CPU quota in µs, the kernel's own default."""


class Groups(Protocol):
    """A place where groups for attempts can be made."""

    word: str

    def create(self, name: str, bounds: Bounds) -> Enclosure: ...
    def leftovers(self) -> Iterator[tuple[str, Enclosure]]:
        """Groups that an earlier agent left behind, with their names."""

    def close(self) -> None:
        """Takes the place away if nothing is in it."""


class UnifiedGroup:
    """Version 2."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._entry: int | None = None

    @property
    def entries(self) -> tuple[int, ...]:
        if self._entry is None:
            self._entry = os.open(f"{self.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        return (self._entry,)

    def started(self, pid: int) -> None:  # noqa: ARG002 - the group knows its processes itself
        self._close()

    def ended(self, used: struct_rusage) -> None:
        pass

    def signal(self, number: int) -> None:
        for pid in members(self.path):
            send(pid, number)

    def kill(self) -> bool:
        try:
            write_file(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14
            self.signal(signal.SIGKILL)
        return numbers(f"{self.path}/cgroup.events").get("populated", 0) == 0

    def measure(self, *, empty: bool = False) -> Measured:
        current = 0 if empty else number(f"{self.path}/memory.current")
        return Measured(
            cpu_seconds=numbers(f"{self.path}/cpu.stat").get("usage_usec", 0) / 1e6,
            memory_bytes=current,
            peak_memory_bytes=number(f"{self.path}/memory.peak", current),
            processes=0 if empty else number(f"{self.path}/pids.current"),
            memory_refused=numbers(f"{self.path}/memory.events").get("oom_kill", 0) > 0,
            process_refused=numbers(f"{self.path}/pids.events").get("max", 0) > 0,
        )

    def remove(self) -> bool:
        self._close()
        return remove_group(self.path)

    def _close(self) -> None:
        if self._entry is not None:
            os.close(self._entry)
            self._entry = None


class UnifiedGroups:
    """Version 2: groups below one that has the controllers memory and pids, and cpu if offered."""

    word = "cgroup2"

    def __init__(self, base: Path, controllers: frozenset[str]) -> None:
        self._base = base
        self._cpu = "cpu" in controllers

    def create(self, name: str, bounds: Bounds) -> UnifiedGroup:
        path = f"{self._base}/{name}"
        make_group(path)
        for file, value in unified_limits(bounds, cpu=self._cpu).items():
            write_file(f"{path}/{file}", value)
        with suppress(OSError):  # kernels without swap accounting lack it
            write_file(f"{path}/memory.swap.max", "0")
        return UnifiedGroup(path)

    def leftovers(self) -> Iterator[tuple[str, UnifiedGroup]]:
        for path in subdirectories(self._base):
            yield path.name, UnifiedGroup(path)

    def close(self) -> None:
        remove_group(self._base)


def unified_limits(bounds: Bounds, *, cpu: bool) -> dict[str, str]:
    """Files of a version 2 group and what to write into them."""
    limits = {
        "memory.max": str(bounds.memory_bytes),
        "memory.oom.group": "1",
        "pids.max": str(bounds.processes),
    }
    if cpu:
        limits["cpu.max"] = f"{bounds.cores * _PERIOD} {_PERIOD}"
    return limits


class LegacyGroup:
    """Version 1: one directory in each controller's own hierarchy."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        """Where it is, by controller."""
        self._paths = paths
        self._folders = tuple(dict.fromkeys(paths.values()))
        self._entries: tuple[int, ...] = ()

    @property
    def entries(self) -> tuple[int, ...]:
        """Files for single threads, all that a new process has: moving whole ones waits for RCU."""
        if not self._entries:
            self._entries = tuple(
                os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self._folders
            )
        return self._entries

    def started(self, pid: int) -> None:  # noqa: ARG002 - the group knows its processes itself
        self._close()

    def ended(self, used: struct_rusage) -> None:
        pass

    def signal(self, number: int) -> None:
        for pid in self._members():
            send(pid, number)

    def kill(self) -> bool:
        """Freezes first where possible, so that a fork bomb cannot outrun the killing."""
        if number(f"{self._paths['pids']}/pids.current", default=1) == 0:
            return True
        if not (members := self._members()):
            return True
        self._freeze("FROZEN")
        for pid in members | self._members():
            send(pid, signal.SIGKILL)
        self._freeze("THAWED")
        return False

    def measure(self, *, empty: bool = False) -> Measured:
        memory, pids = self._paths["memory"], self._paths["pids"]
        cpu = self._paths.get("cpuacct")
        return Measured(
            cpu_seconds=number(f"{cpu}/cpuacct.usage") / 1e9 if cpu else 0.0,
            memory_bytes=0 if empty else number(f"{memory}/memory.usage_in_bytes"),
            peak_memory_bytes=number(f"{memory}/memory.max_usage_in_bytes"),
            processes=0 if empty else number(f"{pids}/pids.current"),
            memory_refused=numbers(f"{memory}/memory.oom_control").get("oom_kill", 0) > 0,
            process_refused=numbers(f"{pids}/pids.events").get("max", 0) > 0,
        )

    def remove(self) -> bool:
        self._close()
        return all([remove_group(path) for path in self._folders])

    def _members(self) -> set[int]:
        return set(members(self._paths["pids"])) | set(members(self._paths["memory"]))

    def _freeze(self, state: str) -> None:
        if freezer := self._paths.get("freezer"):
            with suppress(OSError):
                write_file(f"{freezer}/freezer.state", state)

    def _close(self) -> None:
        for entry in self._entries:
            os.close(entry)
        self._entries = ()


class LegacyGroups:
    """Version 1: needs memory and pids; uses cpu, cpuacct and freezer where they are."""

    word = "cgroup1"

    def __init__(self, bases: Mapping[str, Path]) -> None:
        self._bases = dict(bases)

    def create(self, name: str, bounds: Bounds) -> LegacyGroup:
        paths = self._make(name)
        for (controller, file), value in legacy_limits(bounds).items():
            if controller in paths:
                write_file(f"{paths[controller]}/{file}", value)
        with suppress(OSError):  # only with swap accounting
            write_file(f"{paths['memory']}/memory.memsw.limit_in_bytes", str(bounds.memory_bytes))
        return LegacyGroup(paths)

    def leftovers(self) -> Iterator[tuple[str, LegacyGroup]]:
        names = {path.name for base in self._bases.values() for path in subdirectories(base)}
        for name in sorted(names):
            yield name, LegacyGroup(self._make(name))

    def _make(self, name: str) -> dict[str, str]:
        paths = {controller: f"{base}/{name}" for controller, base in self._bases.items()}
        for path in dict.fromkeys(paths.values()):
            make_group(path)
        return paths

    def close(self) -> None:
        for base in dict.fromkeys(self._bases.values()):
            remove_group(base)


def legacy_limits(bounds: Bounds) -> dict[tuple[str, str], str]:
    """(Controller, file) of a version 1 group and what to write into it."""
    return {
        ("memory", "memory.limit_in_bytes"): str(bounds.memory_bytes),
        ("pids", "pids.max"): str(bounds.processes),
        ("cpu", "cpu.cfs_quota_us"): str(bounds.cores * _PERIOD),
    }
