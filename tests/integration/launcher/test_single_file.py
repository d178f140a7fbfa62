"""The launcher as one file, on hosts that have no Python: what it leaves, and how it dies."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.programs import alive, eventually

MOST_BYTES = 25_000_000
NEWEST_GLIBC = (2, 36)
HIDE_PYTHON = """
for place in /usr/lib/python3* /usr/local/lib/python3*; do
    [ ! -d "$place" ] || mount -t tmpfs none "$place" || exit 9
done
for program in /usr/bin/python3*; do mount --bind /dev/null "$program" || exit 9; done
! /usr/bin/python3 -c '' 2>/dev/null || exit 9
exec "$@"
"""


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """The current directory of the launchers of a test."""
    path = tmp_path / "slot"
    path.mkdir()
    return path


def call(
    program: Path, slot: Path, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words], cwd=slot, env=env, capture_output=True, text=True, timeout=60
    )


@contextmanager
def lasting(program: Path, slot: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher that runs until it is killed: it reads a manifest that nobody writes."""
    pipe = tmp_path / "never" / "manifest.json"
    if not pipe.exists():
        pipe.parent.mkdir()
        os.mkfifo(pipe)
    process = subprocess.Popen([program, "image", "show", pipe.parent], cwd=slot)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def unpacked(slot: Path) -> list[Path]:
    return sorted(slot.glob(".vm-launcher-*"))


async def running(process: subprocess.Popen[bytes], slot: Path) -> Path:
    """Waits until the program itself runs; returns where it is unpacked."""

    def there() -> bool:
        program = Path(f"/proc/{process.pid}/exe").readlink()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        return program.is_relative_to(slot) and "_pydantic_core" in maps

    await eventually(there, what="the unpacked program")
    return Path(f"/proc/{process.pid}/exe").readlink().parent


def test_it_is_small_and_needs_no_newer_glibc(launcher_file: Path, tmp_path: Path) -> None:
    assert launcher_file.stat().st_size <= MOST_BYTES
    data = launcher_file.read_bytes()
    packed = data[data.index(b"\x1f\x8b") :]
    subprocess.run(["tar", "-xz", "-C", tmp_path], input=packed, check=True)
    found = {
        tuple(int(number) for number in version.split(b"."))
        for path in tmp_path.rglob("*")
        if path.is_file()
        for version in re.findall(rb"GLIBC_(2\.[0-9]+)", path.read_bytes())
    }
    assert (2, 14) in found, "the versions are found"
    assert max(found) <= NEWEST_GLIBC


def test_it_knows_its_version_and_leaves_nothing(
    launcher_file: Path, slot: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    env = {"PATH": os.defpath, "TMPDIR": str(elsewhere), "HOME": str(elsewhere)}
    done = call(launcher_file, slot, "--version", env=env)
    assert re.fullmatch(r"vm-launcher \d+\.\d+\.\d+\n", done.stdout), done.stderr
    assert list(slot.iterdir()) == []
    assert list(elsewhere.iterdir()) == []


@pytest.mark.root
def test_it_runs_on_a_host_without_python(launcher_file: Path, slot: Path) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", HIDE_PYTHON, "sh"]
    done = subprocess.run(
        [*hidden, launcher_file, "doctor", "--output", "json"],
        cwd=slot,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 4), done.stderr
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert findings["hypervisor"]["level"] == "ok", "the driver is found inside"
    assert "ended without an answer" not in findings["accelerator"]["text"]


def test_it_starts_as_boincs_client_starts_it(launcher_file: Path, tmp_path: Path) -> None:
    project, slot = tmp_path / "projects" / "127.0.0.1_8080", tmp_path / "slots" / "0"
    project.mkdir(parents=True)
    slot.mkdir(parents=True)
    main_program = shutil.copy(launcher_file, project / "copilot_vm-launcher_0123456789abcdef")
    relative = Path("../..") / Path(main_program).relative_to(tmp_path)
    env = {"PATH": os.defpath, "LD_LIBRARY_PATH": "../../projects/127.0.0.1_8080:.:../.."}
    done = call(relative, slot, "--version", env=env)
    assert done.stdout.startswith("vm-launcher "), done.stderr
    assert list(slot.iterdir()) == []


def test_the_kvm_test_is_inside(launcher_file: Path, slot: Path) -> None:
    done = call(launcher_file, slot, "kvm-probe", "/dev/null")
    assert "error" in json.loads(done.stdout), done.stderr


def test_programs_of_the_host_see_none_of_its_libraries(
    launcher_file: Path, slot: Path, tmp_path: Path
) -> None:
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.parent.mkdir()
    qemu.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\necho QEMU emulator version 7.2.0\n")
    qemu.chmod(0o755)
    path = f"{qemu.parent}:{os.defpath}"
    call(launcher_file, slot, "doctor", env={"PATH": path, "LD_LIBRARY_PATH": "../../projects/x:."})
    seen = (tmp_path / "seen").read_text()
    assert f"PATH={path}" in seen
    assert "LD_LIBRARY_PATH" not in seen
    assert ".vm-launcher-" not in seen


async def test_who_kills_it_has_killed_it(launcher_file: Path, slot: Path, tmp_path: Path) -> None:
    with lasting(launcher_file, slot, tmp_path) as first:
        place = await running(first, slot)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text()
        assert children == "", "one process, that of the caller"

        assert call(launcher_file, slot, "--version").returncode == 0
        assert unpacked(slot) == [place], "a second one lets the first one's files alone"

        first.kill()
        first.wait()
        assert not alive(first.pid)
        assert unpacked(slot) == [place]

    with lasting(launcher_file, slot, tmp_path) as second:
        place = await running(second, slot)
        assert unpacked(slot) == [place], "the next one cleans up"
        second.send_signal(signal.SIGINT)
        assert second.wait() == 130
    assert unpacked(slot) == []


def test_a_pid_that_was_given_again_saves_no_leftovers(launcher_file: Path, slot: Path) -> None:
    left = slot / f".vm-launcher-{os.getpid()}-1"
    left.mkdir()
    assert call(launcher_file, slot, "--version").returncode == 0
    assert list(slot.iterdir()) == []


def test_what_does_not_unpack_says_so(launcher_file: Path, slot: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.write_bytes(launcher_file.read_bytes()[:1_000_000])
    half.chmod(0o755)
    done = call(half, slot, "--version")
    assert done.returncode == 1
    assert "does not unpack" in done.stderr
    assert list(slot.iterdir()) == []


@pytest.mark.root
def test_a_task_that_finds_no_room_comes_back_later(launcher_file: Path, slot: Path) -> None:
    script = (
        'mount -t tmpfs -o size=20m none . && cd "$PWD" && "$0" boinc-task && cat boinc_*; ls -A'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, launcher_file],
        cwd=slot,
        capture_output=True,
        text=True,
        timeout=60,
    )
    seconds, reason, notice, *left = done.stdout.splitlines()
    assert (seconds, notice) == ("3600", "notice")
    assert f"{slot} needs" in reason
    assert "MB of free space" in reason
    assert left == ["boinc_temporary_exit"]
