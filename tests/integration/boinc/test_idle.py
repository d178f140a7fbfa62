"""No work: the volunteer's processor is left free, and a task without any says why it ends.

That reason goes with the report. The client shows the message of a task only if its exit code is 0.
"""

import logging
import time
from pathlib import Path

import pytest

from tests.harness.boinc.payloads import spin
from tests.harness.boinc.work import Report
from tests.harness.boinc.world import VM, World, world

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

IDLE = "waiting for work, your processor is free"
NO_WORK, JOBS_FAILED = 207, 208


async def test_it_waits_without_a_process_and_goes_on(tmp_path: Path, application: Path) -> None:
    settings = f"{VM}[task]\nidle_seconds = 5\nidle_exit_seconds = 10\n"
    async with world(tmp_path, application, settings=settings) as one:
        (name,) = await one.work()
        task = await one.started(name)
        await one.guest(task, "idle")
        task = await one.volunteer.task(name, lambda t: t.waiting_for != "", "postponed")
        assert task.waiting_for == IDLE
        await one.volunteer.message(f"postponed for 10 sec.*{IDLE}")
        log.info("%s", await one.volunteer.boinccmd("--get_tasks"))
        await one.clean()
        began = time.monotonic()
        job = await one.submit(*spin(200_000))
        task = await one.started(name, 150)
        await one.vm(task, "running", 60)
        log.info("started again %.1f s after it had left", time.monotonic() - began)
        status = await one.says(task, lambda status: status.guest_state == "working", 60)
        assert status.vm_boot_seconds is None, "it was booted anew"
        log.info("restored in %s s", status.restore_seconds)
        one.project.send_trickle(name, "<finish/>")  # with this job
        await one.volunteer.project(one.project.url, "update")
        await one.ended(job, 120)
        report = await one.project.reported(name, 180)
        assert report.succeeded, report.stderr
        assert len(one.receipts(report)) == 1
        await one.clean()


async def test_without_any_work(tmp_path: Path, application: Path) -> None:
    settings = f"{VM}[task]\ntask_seconds = 3\n"
    async with world(tmp_path, application, settings=settings) as one:
        (name,) = await one.work()
        report = await given_up(one, name)
        assert report.exit_status == NO_WORK
        assert "no job came" in report.stderr
        await one.clean()


async def test_with_failed_jobs_only(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        jobs = [await one.submit("/bin/false", max_attempts=1) for _ in range(2)]
        (name,) = await one.work()
        await one.started(name)
        for job in jobs:
            assert (await one.ended(job, 240)).state == "failed"
        one.project.send_trickle(name, "<finish/>")
        await one.volunteer.project(one.project.url, "update")
        report = await given_up(one, name)
        assert report.exit_status == JOBS_FAILED
        assert "none of 2 jobs succeeded" in report.stderr
        await one.clean()


async def given_up(one: World, name: str) -> Report:
    """By itself a client waits two minutes after an error."""
    await one.volunteer.task(name, lambda task: task.ready_to_report, "given up", 240)
    await one.volunteer.project(one.project.url, "update")
    report = await one.project.reported(name)
    log.info("exit status %d: %s", report.exit_status, report.stderr[-600:])
    return report
