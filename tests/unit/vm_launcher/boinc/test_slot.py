"""The slot's files."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from vm_launcher.boinc.errors import SlotError, SlotLockedError
from vm_launcher.boinc.slot import Slot


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    """In a client's data directory, as it lays it out."""
    project, place = tmp_path / "projects/p", tmp_path / "slots/0"
    project.mkdir(parents=True)
    place.mkdir(parents=True)
    (place / "init_data.xml").write_text(
        f"<app_init_data><project_dir>{project}</project_dir></app_init_data>"
    )
    (project / "base_1.squashfs").write_bytes(b"image")
    return Slot(place)


def link(slot: Slot, name: str, target: str) -> None:
    (slot.directory / name).write_text(f"<soft_link>{target}</soft_link>\n")


def test_names_of_files_in_the_three_ways_of_the_client(slot: Slot, tmp_path: Path) -> None:
    image = tmp_path / "projects/p/base_1.squashfs"
    link(slot, "soft", "../../projects/p/base_1.squashfs")
    (slot.directory / "real").symlink_to("../../projects/p/base_1.squashfs")
    (slot.directory / "copied").write_bytes(b"x" * 10000)
    assert slot.resolve("soft") == slot.resolve("real") == image
    assert slot.resolve("copied") == slot.directory / "copied"


def test_a_file_that_is_to_be_written(slot: Slot, tmp_path: Path) -> None:
    link(slot, "receipts", "../../projects/p/copilot_e-1_0_r7_0")
    slot.resolve("receipts").write_text("{}")
    assert (tmp_path / "projects/p/copilot_e-1_0_r7_0").read_text() == "{}"
    assert slot.resolve("unlinked") == slot.directory / "unlinked"


def test_what_is_no_plain_file_is_refused_and_not_waited_for(slot: Slot, tmp_path: Path) -> None:
    (slot.directory / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "projects/p/pipe")
    link(slot, "pipe", "../../projects/p/pipe")
    link(slot, "directory", "../../projects/p")
    for name in ("circle", "pipe", "directory"):
        with pytest.raises(SlotError, match=f"{name} of the task is no plain file"):
            slot.resolve(name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../client_state.xml", "../1/x", "../.."])
def test_a_link_that_leads_elsewhere(slot: Slot, target: str) -> None:
    link(slot, "soft", target)
    (slot.directory / "real").symlink_to(target)
    for name in ("soft", "real"):
        with pytest.raises(SlotError, match=f"the file {name} of the task lies outside"):
            slot.resolve(name)


def test_a_link_in_the_projects_directory_that_leads_elsewhere(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "projects/p/evil").symlink_to("/etc/passwd")
    link(slot, "soft", "../../projects/p/evil")
    with pytest.raises(SlotError, match="outside"):
        slot.resolve("soft")


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/etc/passwd", "a\0", "a\n", ".hidden", "x" * 200]
)
def test_what_is_no_name(slot: Slot, name: str) -> None:
    with pytest.raises(SlotError, match="logical name"):
        slot.resolve(name)


def test_how_a_task_ends(slot: Slot) -> None:
    finished = slot.directory / "boinc_finish_called"
    slot.finish(0)
    assert finished.read_text() == "0\n"
    slot.finish(207, "no work\nfor you", notice=True)
    assert finished.read_text() == "207\nno work for you\nnotice\n"
    slot.finish(208, "all jobs failed")
    assert finished.read_text() == "208\nall jobs failed\n\n"


def test_how_a_task_is_put_off(slot: Slot) -> None:
    postponed = slot.directory / "boinc_temporary_exit"
    slot.postpone(1e9, "install the package <qemu-system-x86>\n", notice=True)
    assert postponed.read_text() == "86400\ninstall the package (qemu-system-x86)\nnotice\n"
    slot.postpone(-1, "")
    assert postponed.read_text() == "0\nno reason given\n"
    slot.postpone(600, "é" * 1000)
    assert len(postponed.read_bytes().splitlines()[1]) <= 255


def test_an_ending_that_cannot_be_written(slot: Slot) -> None:
    (slot.directory / "boinc_finish_called").mkdir()
    with pytest.raises(SlotError, match="boinc_finish_called of the slot cannot be written"):
        slot.finish(0)


def test_endings_of_an_earlier_episode(slot: Slot) -> None:
    slot.finish(0)
    slot.postpone(1, "x")
    slot.clear_endings()
    slot.clear_endings()
    assert [path.name for path in slot.directory.iterdir()] == ["init_data.xml"]


HOLDER = """
import asyncio, pathlib, sys
from vm_launcher.boinc.slot import Slot
asyncio.run(Slot(pathlib.Path(sys.argv[1])).lock(0))
print("held", flush=True)
sys.stdin.read()
"""


async def test_one_task_in_a_slot(slot: Slot) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(slot.directory), stdin=PIPE, stdout=PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"
    with pytest.raises(SlotLockedError, match="another process"):
        await slot.lock(0.3)
    other.kill()
    await other.wait()
    await slot.lock(5)
    assert (slot.directory / "boinc_lockfile").exists()
    await slot.lock(0)  # ours already
    slot.unlock()
    assert not (slot.directory / "boinc_lockfile").exists()


async def test_a_lock_file_that_is_a_link(slot: Slot, tmp_path: Path) -> None:
    (slot.directory / "boinc_lockfile").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SlotError, match="cannot be opened"):
        await slot.lock(0)
    assert not (tmp_path / "elsewhere").exists()
