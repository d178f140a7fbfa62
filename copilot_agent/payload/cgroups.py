"""Control groups, version 2 or 1, as enclosures: one group per attempt.

Source of file names and formats: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import errno
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from pathlib import Path
from resource import struct_rusage
from typing import Protocol

from copilot_agent.payload.enclosure import Bounds, Enclosure, Measured
from copilot_agent.payload.processes import send

log = logging.getLogger(__name__)

AGENT_GROUP = "copilot-agent"
_NEEDED = frozenset({"memory", "pids"})
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

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entry: int | None = None

    @property
    def entries(self) -> tuple[int, ...]:
        if self._entry is None:
            self._entry = os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        return (self._entry,)

    def started(self, pid: int) -> None:  # noqa: ARG002 - the group knows its processes itself
        self._close()

    def ended(self, used: struct_rusage) -> None:
        pass

    def signal(self, number: int) -> None:
        for pid in _pids(self.path):
            send(pid, number)

    def kill(self) -> bool:
        try:
            _write(self.path / "cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14
            self.signal(signal.SIGKILL)
        return _numbers(self.path / "cgroup.events").get("populated", 0) == 0

    def measure(self) -> Measured:
        current = _number(self.path / "memory.current")
        return Measured(
            cpu_seconds=_numbers(self.path / "cpu.stat").get("usage_usec", 0) / 1e6,
            memory_bytes=current,
            peak_memory_bytes=_number(self.path / "memory.peak", current),
            processes=_number(self.path / "pids.current"),
            memory_refused=_numbers(self.path / "memory.events").get("oom_kill", 0) > 0,
            process_refused=_numbers(self.path / "pids.events").get("max", 0) > 0,
        )

    def remove(self) -> bool:
        self._close()
        return _remove(self.path)

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
        path = self._base / name
        path.mkdir(exist_ok=True)
        for file, value in unified_limits(bounds, cpu=self._cpu).items():
            _write(path / file, value)
        with suppress(OSError):  # kernels without swap accounting lack it
            _write(path / "memory.swap.max", "0")
        return UnifiedGroup(path)

    def leftovers(self) -> Iterator[tuple[str, UnifiedGroup]]:
        for path in _subdirectories(self._base):
            yield path.name, UnifiedGroup(path)

    def close(self) -> None:
        _remove(self._base)


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

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._entries: tuple[int, ...] = ()

    @property
    def entries(self) -> tuple[int, ...]:
        if not self._entries:
            unique = dict.fromkeys(self._paths.values())
            self._entries = tuple(
                os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in unique
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
        if not (members := self._members()):
            return True
        self._freeze("FROZEN")
        for pid in members | self._members():
            send(pid, signal.SIGKILL)
        self._freeze("THAWED")
        return False

    def measure(self) -> Measured:
        memory, pids = self._paths["memory"], self._paths["pids"]
        cpu = self._paths.get("cpuacct")
        return Measured(
            cpu_seconds=_number(cpu / "cpuacct.usage") / 1e9 if cpu else 0.0,
            memory_bytes=_number(memory / "memory.usage_in_bytes"),
            peak_memory_bytes=_number(memory / "memory.max_usage_in_bytes"),
            processes=_number(pids / "pids.current"),
            memory_refused=_numbers(memory / "memory.oom_control").get("oom_kill", 0) > 0,
            process_refused=_numbers(pids / "pids.events").get("max", 0) > 0,
        )

    def remove(self) -> bool:
        self._close()
        return all([_remove(path) for path in dict.fromkeys(self._paths.values())])

    def _members(self) -> set[int]:
        return set(_pids(self._paths["pids"])) | set(_pids(self._paths["memory"]))

    def _freeze(self, state: str) -> None:
        if freezer := self._paths.get("freezer"):
            with suppress(OSError):
                _write(freezer / "freezer.state", state)

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
        paths = {controller: base / name for controller, base in self._bases.items()}
        for path in paths.values():
            path.mkdir(exist_ok=True)
        for (controller, file), value in legacy_limits(bounds).items():
            if controller in paths:
                _write(paths[controller] / file, value)
        with suppress(OSError):  # only with swap accounting
            _write(paths["memory"] / "memory.memsw.limit_in_bytes", str(bounds.memory_bytes))
        return LegacyGroup(paths)

    def leftovers(self) -> Iterator[tuple[str, LegacyGroup]]:
        names = {path.name for base in self._bases.values() for path in _subdirectories(base)}
        for name in sorted(names):
            paths = {key: base / name for key, base in self._bases.items()}
            for path in paths.values():
                path.mkdir(exist_ok=True)
            yield name, LegacyGroup(paths)

    def close(self) -> None:
        for base in dict.fromkeys(self._bases.values()):
            _remove(base)


def legacy_limits(bounds: Bounds) -> dict[tuple[str, str], str]:
    """(Controller, file) of a version 1 group and what to write into it."""
    return {
        ("memory", "memory.limit_in_bytes"): str(bounds.memory_bytes),
        ("pids", "pids.max"): str(bounds.processes),
        ("cpu", "cpu.cfs_period_us"): str(_PERIOD),
        ("cpu", "cpu.cfs_quota_us"): str(bounds.cores * _PERIOD),
    }


def find_groups(name: str) -> Groups | None:
    """Control groups that this process can really make and limit, the newer version first.

    `name` is the directory below the process's own groups in which groups will be made.
    """
    own = _own_groups(Path("/proc/self/cgroup").read_text())
    mounts = list(_mounts(Path("/proc/self/mountinfo").read_text()))
    groups = _find_unified(name, own, mounts) or _find_legacy(name, own, mounts)
    if groups is None:
        return None
    try:
        _try_out(groups)
    except OSError as error:
        log.info("control groups are there, but cannot be used: %s", error)
        return None
    return groups


def _try_out(groups: Groups) -> None:
    trial = groups.create("trial", Bounds(cores=1, memory_bytes=1 << 24, processes=4))
    try:
        if not trial.entries:
            raise OSError(errno.ENOTSUP, "no process can be moved into a group")
    finally:
        trial.remove()


Mount = tuple[str, Path, str, frozenset[str]]
"""File system type, mount point, root within the file system, options of the super block."""


def _own_groups(text: str) -> dict[str, str]:
    """Controller → path of this process's group; version 2 has the empty name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            root, point = fields.split(" ")[3:5]
            yield kind, Path(point), root, frozenset(options.split(","))


def _group_path(mount: Mount, own: str) -> Path:
    """Where this process's own group is mounted."""
    _, point, root, _ = mount
    below = own.removeprefix(root.rstrip("/")).lstrip("/")
    return point / below


def _find_unified(name: str, own: Mapping[str, str], mounts: list[Mount]) -> UnifiedGroups | None:
    mount = next((each for each in mounts if each[0] == "cgroup2"), None)
    if mount is None or "" not in own:
        return None
    parent = _unified_parent(mount[1], _group_path(mount, own[""]))
    wanted = (_NEEDED | {"cpu"}) & _words(parent / "cgroup.controllers")
    if not wanted >= _NEEDED:
        return None
    base = parent / name
    try:
        _enable(parent, wanted)
        base.mkdir(exist_ok=True)
        _enable(base, wanted)
    except OSError as error:
        log.info("version 2 control groups cannot be used in %s: %s", parent, error)
        return None
    return UnifiedGroups(base, wanted)


def _unified_parent(top: Path, own: Path) -> Path:
    """The group below which ours are made: our own, or the one above.

    Above if we stepped aside ourselves, or were put into a group of our own by someone who prepared
    the top for its neighbours, as the guest does.
    """
    prepared = own.parent == top and _words(top / "cgroup.subtree_control") >= _NEEDED
    return own.parent if prepared or own.name == AGENT_GROUP else own


def _enable(path: Path, wanted: Set[str]) -> None:
    """Turns controllers on for the groups below `path`.

    A group with processes of its own may not do that, so this process steps aside if need be.
    """
    missing = wanted - _words(path / "cgroup.subtree_control")
    if not missing:
        return
    change = " ".join(f"+{word}" for word in sorted(missing))
    try:
        _write(path / "cgroup.subtree_control", change)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        aside = path / AGENT_GROUP
        aside.mkdir(exist_ok=True)
        _write(aside / "cgroup.procs", "0")
        _write(path / "cgroup.subtree_control", change)


def _find_legacy(name: str, own: Mapping[str, str], mounts: list[Mount]) -> LegacyGroups | None:
    bases = {}
    for controller in ("memory", "pids", "cpu", "cpuacct", "freezer"):
        mount = next((each for each in mounts if controller in each[3]), None)
        if mount is None or controller not in own:
            continue
        base = _group_path(mount, own[controller]) / name
        with suppress(OSError):
            base.mkdir(exist_ok=True)
            bases[controller] = base
    return LegacyGroups(bases) if bases.keys() >= _NEEDED else None


def _write(path: Path, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    """Empty if the file is not there: controllers and kernels differ."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(handle, 1 << 16).decode()
    except OSError:  # the group went away meanwhile
        return ""
    finally:
        os.close(handle)


def _number(path: Path, default: int = 0) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else default


def _numbers(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _words(path: Path) -> set[str]:
    return set(_read(path).split())


def _pids(path: Path) -> Iterator[int]:
    """Processes of a group and the groups below it, if a privileged payload made any."""
    for folder in [path, *_subdirectories(path)]:
        yield from (int(line) for line in _read_all(folder / "cgroup.procs").split())


def _read_all(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _subdirectories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _remove(path: Path) -> bool:
    """Whether it is gone. A group whose last process has just died stays busy for an instant."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            log.warning("control group %s stays behind: %s", path, error)
        return False
    return True
