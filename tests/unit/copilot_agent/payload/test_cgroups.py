from pathlib import Path

import pytest

from copilot_agent.payload import group_search
from copilot_agent.payload.cgroups import UnifiedGroup, legacy_limits, unified_limits
from copilot_agent.payload.enclosure import Bounds

BOUNDS = Bounds(cores=2, memory_bytes=1 << 28, processes=100)


def test_limits_of_version_2() -> None:
    assert unified_limits(BOUNDS, cpu=True) == {
        "memory.max": "268435456",
        "memory.oom.group": "1",
        "pids.max": "100",
        "cpu.max": "200000 100000",
    }
    assert "cpu.max" not in unified_limits(BOUNDS, cpu=False)


def test_limits_of_version_1() -> None:
    limits = legacy_limits(BOUNDS)
    assert limits["memory", "memory.limit_in_bytes"] == "268435456"
    assert limits["pids", "pids.max"] == "100"
    assert limits["cpu", "cpu.cfs_quota_us"] == "200000"


@pytest.mark.parametrize(
    ("root", "own", "path"),
    [
        ("/", "/", "/sys/fs/cgroup"),
        ("/", "/system.slice/agent.service", "/sys/fs/cgroup/system.slice/agent.service"),
        ("/docker/12ab", "/docker/12ab", "/sys/fs/cgroup"),
        ("/docker/12ab", "/docker/12ab/inner", "/sys/fs/cgroup/inner"),
    ],
)
def test_own_group_is_found_below_its_mount(root: str, own: str, path: str) -> None:
    mounts = f"29 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    (mount,) = group_search._mounts("1 2 0:3 / /proc rw - proc proc rw\n" + mounts)
    assert group_search._group_path(mount, own) == Path(path)


def test_own_groups_of_both_versions() -> None:
    text = "9:cpu,cpuacct:/a\n3:name=systemd:/s\n0::/b\n"
    assert group_search._own_groups(text) == {
        "cpu": "/a",
        "cpuacct": "/a",
        "name=systemd": "/s",
        "": "/b",
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that looks like a version 2 group."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    return tmp_path


def test_version_2_is_taken_where_memory_and_pids_are(tree: Path) -> None:
    mounts = [("cgroup2", tree, "/", frozenset[str]())]
    (tree / "copilot-x").mkdir()
    (tree / "copilot-x/cgroup.subtree_control").write_text("cpu memory pids\n")
    groups = group_search._find_unified("copilot-x", {"": "/"}, mounts)
    assert groups is not None
    (tree / "copilot-x/old").mkdir()
    assert [name for name, _ in groups.leftovers()] == ["old"]
    (tree / "cgroup.controllers").write_text("hugetlb\n")
    assert group_search._find_unified("copilot-x", {"": "/"}, mounts) is None


def test_an_agent_that_stepped_aside_makes_groups_beside_itself(tree: Path) -> None:
    mounts = [("cgroup2", tree, "/", frozenset[str]())]
    (tree / "copilot-x").mkdir()
    (tree / "copilot-x/cgroup.subtree_control").write_text("cpu memory pids\n")
    assert group_search._find_unified("copilot-x", {"": "/copilot-agent"}, mounts) is not None


def test_the_guest_has_a_group_for_the_agent_and_prepares_the_top(tree: Path) -> None:
    (tree / "agent").mkdir()
    assert group_search._unified_parent(tree, tree / "agent") == tree
    assert group_search._unified_parent(tree, tree / "agent/deeper") == tree / "agent/deeper"
    (tree / "cgroup.subtree_control").write_text("cpu\n")
    assert group_search._unified_parent(tree, tree / "agent") == tree / "agent"


def test_what_version_2_says(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        "memory.current": "1000\n",
        "memory.peak": "5000\n",
        "memory.events": "low 0\nmax 7\noom 1\noom_kill 1\n",
        "pids.current": "3\n",
        "pids.events": "max 0\n",
        "cgroup.events": "populated 0\nfrozen 0\n",
        "cgroup.kill": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = UnifiedGroup(tmp_path)
    measured = group.measure()
    assert (measured.cpu_seconds, measured.memory_bytes, measured.peak_memory_bytes) == (
        2.5,
        1000,
        5000,
    )
    assert (measured.processes, measured.memory_refused, measured.process_refused) == (
        3,
        True,
        False,
    )
    assert group.kill()
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    assert not group.kill()


def test_a_group_that_is_gone_measures_nothing(tmp_path: Path) -> None:
    assert UnifiedGroup(tmp_path / "gone").measure().memory_bytes == 0
