"""How this computer is doing, from files that look like those of /proc, and from the real ones."""

import os
import subprocess
from pathlib import Path

import pytest

from copilot_agent.xmpp import computer
from copilot_agent.xmpp.computer import Disk, Load, Memory, Traffic


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self" / "net").mkdir(parents=True)
    (tmp_path / "loadavg").write_text("2.38 3.31 2.82 3/512 4711\n")
    (tmp_path / "uptime").write_text("1000.00 3000.00\n")
    (tmp_path / "meminfo").write_text(
        "MemTotal:  1048576 kB\nMemFree: 1024 kB\nMemAvailable: 524288 kB\n"
        "SwapTotal: 2048 kB\nSwapFree: 1024 kB\nHugePages_Total: 0\n"
    )
    return tmp_path


def add_process(proc: Path, pid: int, stat: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(stat)


def a_stat(pid: int, name: str, rss_pages: int, *, ticks: int = 100, start: int = 90_000) -> str:
    return (
        f"{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 {ticks} {ticks} 0 0 20 0 1 0 {start} 0 {rss_pages}"
    )


def test_load_and_memory(proc: Path) -> None:
    assert computer.load(proc) == Load((2.38, 3.31, 2.82))
    assert computer.memory(proc) == [Memory("mem", 512, 512), Memory("swap", 1, 1)]


def test_each_device_once_by_its_shortest_place(proc: Path, tmp_path: Path) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    spelled = str(place).replace(" ", "\\040")
    lines = [
        f"/dev/vda {spelled} ext4 rw 0 0",
        f"/dev/vda {spelled}/etc/hosts ext4 rw 0 0",
        f"tmpfs {tmp_path} tmpfs rw 0 0",
        "/dev/vdb /nowhere/at/all ext4 rw 0 0",
    ]
    (proc / "self" / "mounts").write_text("\n".join(lines) + "\n")
    (disk,) = computer.disks(proc)
    assert (disk.device, disk.mounted_on) == ("/dev/vda", str(place))
    assert disk.total >= disk.used + disk.available - 2 > 0


def test_what_is_used_is_said_of_what_could_be_used() -> None:
    assert Disk("/dev/vda", "/", 258020, 30988, 72911).percent == 30
    assert Disk("/dev/empty", "/", 0, 0, 0).percent == 0


def test_processes_by_name_whatever_they_call_themselves(proc: Path) -> None:
    add_process(proc, 7, a_stat(7, "a) S (b", rss_pages=2))
    add_process(proc, 8, "8 (gone")
    add_process(proc, 10, a_stat(10, "kworker/0:1", rss_pages=0))
    add_process(proc, 9, a_stat(9, "late", rss_pages=1, start=10**9))
    (first, second) = computer.processes(proc)
    assert (first.pid, first.name, first.cpu_seconds) == (7, "a) S (b", 2)
    assert first.rss_kib == 2 * os.sysconf("SC_PAGE_SIZE") // 1024
    assert first.cpu_percent == pytest.approx(2.0)
    assert second.name == "late"


def test_of_too_many_processes_the_large_ones(proc: Path) -> None:
    many = computer.MAX_PROCESSES + 5
    for pid in range(1, many + 1):
        add_process(proc, pid, a_stat(pid, "p", rss_pages=pid))
    assert [process.pid for process in computer.processes(proc)] == list(range(6, many + 1))


def test_traffic_of_each_interface(proc: Path) -> None:
    heads = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n"
    lines = "    lo: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\neth0:1: 30 1 0 0 0 0 0 0 40 1\n"
    (proc / "self" / "net" / "dev").write_text(heads + lines)
    assert computer.traffic(proc) == [Traffic("lo", 10, 20), Traffic("eth0:1", 30, 40)]


def test_this_very_computer_agrees_with_its_own_tools() -> None:
    assert os.getpid() in {process.pid for process in computer.processes()}
    (memory, _) = computer.memory()
    free = subprocess.run(["free", "-m"], capture_output=True, text=True, check=True).stdout
    total = int(free.split("Mem:")[1].split()[0])
    assert memory.used + memory.available == pytest.approx(total, abs=2)
    df = subprocess.run(["df", "--block-size=M"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in df.stdout.splitlines() if line.startswith("/dev/")]
    assert {(row[0], row[1]) for row in rows} >= {
        (disk.device, f"{disk.total}M") for disk in computer.disks()
    }
