"""What a volunteer's computer does not run: wrong signatures, files that are not what they were."""

import logging
from pathlib import Path

import pytest

from tests.harness.boinc.work import Report
from tests.harness.boinc.world import VM, World, world

pytestmark = pytest.mark.vm

log = logging.getLogger(__name__)

INIT_FAILURE = 206


def named(one: World, stem: str) -> str:
    """The physical name of the application's file `stem`."""
    (version,) = one.project.shelf.versions
    (name,) = (f.physical_name for f in version.files if f.physical_name.startswith(stem))
    return name


async def given_up(one: World, name: str) -> Report:
    """By itself a client waits two minutes after an error."""
    await one.volunteer.task(name, lambda task: task.ready_to_report, "given up")
    await one.volunteer.project(one.project.url, "update")
    report = await one.project.reported(name)
    assert not report.succeeded
    log.info("exit status %d, state %d: %s", report.exit_status, report.state, report.stderr)
    return report


async def never_started(one: World) -> None:
    said = [message.text for message in await one.volunteer.messages()]
    assert not any(text.startswith("Starting task") for text in said)
    assert not one.volunteer.slots()


async def test_an_application_with_a_wrong_signature(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM, attached=False) as one:
        launcher = named(one, "copilot_vm-launcher")
        one.project.faults.wrong_signatures.add(launcher)
        (name,) = await one.work()
        await one.volunteer.attach(one.project.url, one.project.authenticator)
        report = await given_up(one, name)
        assert launcher in report.stderr
        assert "vm_launcher" not in report.stderr
        await never_started(one)
        await one.clean()


@pytest.mark.boinc
async def test_a_layer_that_was_damaged_on_its_way(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM, attached=False) as one:
        agent = named(one, "copilot_agent")
        one.project.faults.corrupt.add(agent)
        (name,) = await one.work()
        await one.volunteer.attach(one.project.url, one.project.authenticator)
        report = await given_up(one, name)
        assert agent in report.stderr
        await never_started(one)
        await one.clean()


@pytest.mark.boinc
async def test_a_layer_that_was_damaged_after_its_download(
    tmp_path: Path, application: Path
) -> None:
    """The client starts a task with it, for it looks at sizes only; the launcher refuses."""
    async with world(tmp_path, application, settings=VM) as one:
        base = named(one, "copilot_base")
        (name,) = await one.work()
        task = await one.volunteer.task(name)
        await one.volunteer.order(task, "suspend")
        await one.volunteer.task(name, lambda t: t.state == 2, "downloaded")
        path = one.volunteer.project_directory(one.project.url) / base
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
        await one.volunteer.order(task, "resume")
        report = await given_up(one, name)
        assert report.exit_status == INIT_FAILURE
        told = "the unpacked base differs from the signed manifest. Try: reset the project"
        assert told in report.stderr
        await one.clean()
