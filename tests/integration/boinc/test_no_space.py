"""Disks that are full: a task waits, or starts anew, and the volunteer reads why."""

import asyncio
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.boinc.patience import until
from tests.harness.boinc.payloads import spin
from tests.harness.boinc.world import VM, world

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

CLIENT_WAITS = 60.0
"""Seconds from its word to quit until it kills."""


async def test_a_vm_that_does_not_fit(tmp_path: Path, application: Path) -> None:
    settings = f"[vm]\nmemory_mib = 384\ndisk_mib = {1 << 24}\n"
    async with world(tmp_path, application, settings=settings) as one:
        (name,) = await one.work()
        task = await one.volunteer.task(name, lambda t: t.waiting_for != "", "postponed", 180)
        log.info("%s", task.waiting_for)
        sizes = re.search(r"needs (\d+) MiB.* (\d+) MiB are free", task.waiting_for)
        assert sizes is not None
        assert int(sizes[1]) == (1 << 24) + 384
        notices = await one.volunteer.call("<get_notices><seqno>0</seqno></get_notices>")
        assert sizes[0] in "".join(notices.itertext())
        assert one.project.result(name).report is None
        await one.clean()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """With room for the application and one VM, but hardly more."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1300m,mode=755", "tmpfs", str(mounted)]
    subprocess.run(words, check=True)
    yield mounted / "volunteer"
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.mark.root
async def test_a_disk_that_is_full_in_the_middle_of_a_save(
    tmp_path: Path, application: Path, small_disk: Path
) -> None:
    async with world(tmp_path, application, settings=VM, volunteer_home=small_disk) as one:
        job = await one.submit(*spin(100_000))
        (name,) = await one.work()
        task = await one.started(name)
        await one.guest(task, "working")
        filler = small_disk.parent / "filler"
        fill(filler, leave_mib=450)
        began = time.monotonic()
        quitting = asyncio.create_task(one.volunteer.quit())
        part = one.volunteer.slot(task) / "launcher" / "vm" / "memory.state.part"
        await until(lambda: answered(part.exists()), "the save to begin", CLIENT_WAITS)
        fill(filler)
        await until(lambda: answered(not one.hypervisors()), "the end of the VM", CLIENT_WAITS)
        log.info("no VM %.1f s after the word to quit", time.monotonic() - began)
        filler.unlink()
        await quitting
        assert time.monotonic() - began < CLIENT_WAITS, "it was killed"
        await one.clean()
        await one.volunteer.start()
        status = await one.guest(await one.started(name), "working")
        assert status.restore_seconds is None, "it was saved after all"
        await one.ended(job, 300)
        one.project.send_trickle(name, "<finish/>")
        await one.volunteer.project(one.project.url, "update")
        report = await one.project.reported(name, 240)
        assert report.succeeded, report.stderr
        assert "the VM could not be saved" in report.stderr
        await one.clean()


async def answered(answer: bool) -> bool:
    return answer


def fill(filler: Path, leave_mib: int = 0) -> None:
    """To the last page, if nothing is to be left."""
    with filler.open("ab") as file:
        for piece in (1 << 24, 1 << 20, 1 << 12):
            with suppress(OSError):  # somebody else took the last of it meanwhile
                while free_bytes(filler) >= (leave_mib << 20) + piece:
                    os.posix_fallocate(file.fileno(), filler.stat().st_size, piece)


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
