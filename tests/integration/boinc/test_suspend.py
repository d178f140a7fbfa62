"""A volunteer suspends a task, with both answers to "leave it in memory while suspended?"."""

import logging
import time
from pathlib import Path

import pytest

from tests.harness.boinc.world import VM, world
from tests.harness.jobs import succeeded_once

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0


async def test_suspended_in_memory_or_on_disk_the_same_job_goes_on(
    tmp_path: Path, application: Path
) -> None:
    """In memory it is longer than a lease; on disk only what has had a checkpoint is asked to."""
    keep = {"leave_apps_in_memory": 1}
    async with world(
        tmp_path, application, settings=VM, preferences=keep, lease_seconds=LEASE_SECONDS
    ) as one:
        first, job = await one.busy(1), await one.busy(30)
        (name,) = await one.work()
        task = await one.started(name)
        await one.ended(first, 150)
        await one.reached(job, "running", 60)
        before = one.status(task)
        (qemu,) = one.hypervisors()

        began = time.monotonic()
        await one.volunteer.order(task, "suspend")
        await one.vm(task, "paused")
        log.info("stopped %.2f s after the order", time.monotonic() - began)
        await one.pilot(before, "paused")
        await one.stays(job, "running", 1.5 * LEASE_SECONDS)
        assert one.hypervisors() == [qemu]
        await one.volunteer.order(task, "resume")
        await one.vm(task, "running")
        await one.pilot(before, "alive")

        await one.volunteer.prefer(leave_apps_in_memory=0)
        await one.volunteer.task(name, lambda task: task.checkpoint_cpu_seconds > 0)
        began = time.monotonic()
        await one.volunteer.order(task, "suspend")
        await one.volunteer.task(name, lambda task: task.process == "none", "gone")
        log.info("saved and gone %.2f s after the order", time.monotonic() - began)
        assert one.status(task).state == "saved"
        await one.clean()
        began = time.monotonic()
        await one.volunteer.order(task, "resume")
        after = await one.vm(task, "running", 60)
        log.info("runs again %.2f s after the order", time.monotonic() - began)
        assert after.pid != before.pid
        assert after.restore_seconds is not None

        view = await one.ended(job, 120)
        succeeded_once(view)
        assert [(each.attempt, each.pilot) for each in view.attempts] == [(1, before.pilot)]
        report = await one.finished(name)
        assert [receipt.statement.job for receipt in one.receipts(report)] == [first, job]
        await one.clean()
