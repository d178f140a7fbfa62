"""Volunteers' computers that differ: another user, an application of their own, no QEMU."""

import logging
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.boinc.payloads import spin
from tests.harness.boinc.world import VM, World, world

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

DAY = 86400
USER = "nobody"


async def test_without_qemu(tmp_path: Path, application: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for path in Path("/usr/bin").iterdir():
        if not path.name.startswith("qemu"):
            (programs / path.name).symlink_to(path)
    environment = {"PATH": str(programs)}
    async with world(tmp_path, application, settings=VM, environment=environment) as one:
        (name,) = await one.work()
        task = await one.volunteer.task(name, lambda t: t.waiting_for != "", "postponed")
        for package in ("qemu-system-x86", "qemu-utils"):
            assert package in task.waiting_for
        message = await one.volunteer.message("postponed for")
        assert f"{DAY} sec" in message.text
        await the_notice_says(one, "apt install qemu-system-x86 qemu-utils")
        assert one.project.result(name).report is None
        await one.clean()


async def test_an_application_of_the_volunteers_own(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM, anonymous=True) as one:
        await a_whole_life(one)
        assert not any("copilot_" in name for name in one.project.downloads if name[8:10] != "e-")


@pytest.fixture
def home_of_a_user() -> Iterator[Path]:
    """Where an ordinary user may walk, as the directory of pytest is closed to others."""
    with tempfile.TemporaryDirectory(prefix="volunteer-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "boinc"


@pytest.mark.root
async def test_as_an_ordinary_user(tmp_path: Path, application: Path, home_of_a_user: Path) -> None:
    async with world(
        tmp_path, application, settings=VM, volunteer_home=home_of_a_user, user=USER
    ) as one:
        await a_whole_life(one)


async def the_notice_says(one: World, words: str) -> None:
    reply = await one.volunteer.call("<get_notices><seqno>0</seqno></get_notices>")
    told = "".join(reply.itertext())
    assert words in told


async def a_whole_life(one: World) -> None:
    job = await one.submit(*spin(100_000))
    (name,) = await one.work()
    task = await one.started(name)
    await one.guest(task, "working")
    (vm,) = one.hypervisors()
    owner = Path(f"/proc/{vm}").stat().st_uid
    client = Path(f"/proc/{one.volunteer.pid}").stat().st_uid
    # as root the launcher gives its VM to nobody; an ordinary user's VM stays that user's
    assert owner == (client or pwd.getpwnam("nobody").pw_uid)
    await one.ended(job, 180)
    one.project.send_trickle(name, "<finish/>")
    await one.volunteer.project(one.project.url, "update")
    report = await one.project.reported(name, 180)
    assert report.succeeded, report.stderr
    (receipt,) = one.receipts(report)
    assert receipt.statement.job == job
    assert one.project.result(name).granted == pytest.approx(receipt.statement.granted, abs=1e-6)
    await one.volunteer.task_gone(name)
    assert not one.volunteer.slots()
    await one.clean()
