"""The client quits in the middle of a job, and comes back."""

import logging
import time
from pathlib import Path

import pytest

from tests.harness.boinc.world import VM, world
from tests.harness.jobs import succeeded_once

pytestmark = pytest.mark.vm

log = logging.getLogger(__name__)


async def test_the_same_job_goes_on_after_the_client_has_quit(
    tmp_path: Path, application: Path
) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        job = await one.busy(10)
        (name,) = await one.work()
        task = await one.started(name)
        before = await one.guest(task, "working")
        began = time.monotonic()
        await one.volunteer.quit()
        log.info("quit: nothing of the client runs after %.1f s", time.monotonic() - began)
        saved = one.status(task)
        assert saved.state == "saved"
        await one.clean()

        began = time.monotonic()
        await one.volunteer.start()
        after = await one.says(task, lambda status: status.state == "running", 60)
        log.info("it runs again %.1f s after the client's start", time.monotonic() - began)
        log.info("saved in %s s, restored in %s s", saved.save_seconds, after.restore_seconds)
        assert after.pid != before.pid
        assert after.restore_seconds is not None
        used = saved.cpu_seconds - 0.01
        await one.volunteer.task(name, lambda now: now.checkpoint_cpu_seconds >= used, "goes on")
        view = await one.ended(job, 120)
        succeeded_once(view)
        assert [(each.attempt, each.pilot) for each in view.attempts] == [(1, before.pilot)]

        report = await one.finished(name)
        (receipt,) = one.receipts(report)
        assert (receipt.statement.job, receipt.statement.attempt) == (job, 1)
        assert one.project.credit == pytest.approx(receipt.statement.granted, abs=1e-6)
        await one.clean()
