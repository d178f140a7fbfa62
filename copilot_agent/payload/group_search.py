"""Finds out which control groups this process can make and limit.

Source of the formats: the kernel's admin-guide/cgroup-v2.rst, cgroups(7) and proc(5).
"""

import errno
import logging
import os
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from pathlib import Path

from copilot_agent.payload import group_files
from copilot_agent.payload.cgroups import Groups, LegacyGroups, UnifiedGroups
from copilot_agent.payload.enclosure import Bounds
from copilot_agent.payload.processes import read_process

log = logging.getLogger(__name__)

AGENT_GROUP = "copilot-agent"
_NEEDED = frozenset({"memory", "pids"})


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
    wanted = (_NEEDED | {"cpu"}) & group_files.words(parent / "cgroup.controllers")
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
    prepared = own.parent == top and group_files.words(top / "cgroup.subtree_control") >= _NEEDED
    return own.parent if prepared or own.name == AGENT_GROUP else own


def _enable(path: Path, wanted: Set[str]) -> None:
    """Turns controllers on for the groups below `path`.

    A group with processes of its own may not do that, so this process steps aside if need be.
    """
    missing = wanted - group_files.words(path / "cgroup.subtree_control")
    if not missing:
        return
    change = " ".join(f"+{word}" for word in sorted(missing))
    try:
        group_files.write_file(path / "cgroup.subtree_control", change)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        aside = path / AGENT_GROUP
        aside.mkdir(exist_ok=True)
        for pid in _own_processes(path):
            group_files.write_file(aside / "cgroup.procs", str(pid))
        group_files.write_file(path / "cgroup.subtree_control", change)


def _own_processes(path: Path) -> Iterator[int]:
    """This process and its children, such as the starter, as far as they are in that group."""
    for pid in group_files.members(path):
        process = read_process(pid)
        if pid == os.getpid() or (process is not None and process.parent == os.getpid()):
            yield pid


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
