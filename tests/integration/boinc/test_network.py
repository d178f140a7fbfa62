"""The volunteer switches the network off while a job runs."""

import logging
import time
from pathlib import Path

import pytest

from tests.harness import programs
from tests.harness.boinc.world import VM, world
from tests.harness.jobs import succeeded_once

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)


async def test_a_task_that_needs_the_network_is_suspended_with_it(
    tmp_path: Path, application: Path
) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        job = await one.busy(10)
        (name,) = await one.work()
        task = await one.started(name)
        await one.guest(task, "working")
        began = time.monotonic()
        await one.volunteer.set_network_mode("never")
        await one.vm(task, "paused")
        log.info("stopped %.2f s after the network was switched off", time.monotonic() - began)
        await one.volunteer.set_network_mode("always")
        await one.vm(task, "running")
        view = await one.ended(job, 120)
        succeeded_once(view)
        assert len(view.attempts) == 1
        await one.finished(name)
        await one.clean()


async def test_a_task_that_does_not_need_it_works_on_without_any_connection(
    tmp_path: Path, application: Path
) -> None:
    async with world(tmp_path, application, settings=VM, without=("needs_network",)) as one:
        job = await one.busy(8)
        (name,) = await one.work()
        task = await one.started(name)
        before = await one.guest(task, "working")
        assert one.connections(task)
        began = time.monotonic()
        await one.volunteer.set_network_mode("never")
        await one.says(task, lambda status: status.network["network_enabled"] is False)
        await programs.eventually(lambda: not one.connections(task), 5, "no connection")
        log.info("cut off %.2f s after the order", time.monotonic() - began)
        at_cut = one.status(task)
        after = await one.says(task, lambda status: status.jobs_running == 0, 60)
        log.info("the job has ended %.1f s after the order", time.monotonic() - began)
        assert after.state == "running"
        assert after.network["connections"] == at_cut.network["connections"]
        assert not one.connections(task)
        assert (await one.client.jobs.show(job)).state == "running", "as far as the manager knows"

        await one.volunteer.set_network_mode("always")
        view = await one.ended(job, 120)
        succeeded_once(view)
        assert [(each.attempt, each.pilot) for each in view.attempts] == [(1, before.pilot)]
        report = await one.finished(name)
        (receipt,) = one.receipts(report)
        assert receipt.statement.job == job
        await one.clean()
