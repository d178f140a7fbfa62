"""The life of tasks under the real BOINC client: everything but the project's server is real."""

import logging
import time
from pathlib import Path

import pytest

from tests.harness.boinc.world import VM, world

pytestmark = pytest.mark.vm

log = logging.getLogger(__name__)

SPIN = "i=0; while [ $i -lt {} ]; do i=$((i+1)); done"


async def test_attach_work_and_credit(tmp_path: Path, application: Path) -> None:
    settings = VM + "[task]\ntask_seconds = 600\n"
    async with world(tmp_path, application, settings=settings) as one:
        job = await one.submit("/bin/sh", "-c", SPIN.format(300_000))
        (name,) = await one.work()
        began = time.monotonic()
        task = await one.started(name)
        log.info("task started after %.1f s", time.monotonic() - began)
        await one.guest(task, "working")
        log.info("working after %.1f s", time.monotonic() - began)
        task = await one.volunteer.task(name, lambda t: t.fraction_done > 0 and t.cpu_seconds > 5)
        shown = await one.volunteer.boinccmd("--get_tasks")
        assert f"name: {name}" in shown
        assert task.web_page.startswith("http://localhost:")
        await one.volunteer.order(task, "suspend")
        await one.vm(task, "paused")
        await one.volunteer.order(task, "resume")
        await one.vm(task, "running")
        await one.ended(job, 240)
        one.project.send_trickle(name, "<finish/>")
        await one.volunteer.project(one.project.url, "update")
        report = await one.project.reported(name, 180)
        assert report.succeeded, report.stderr
        log.info("%s", report.stderr)
        (receipt,) = one.receipts(report)
        assert receipt.statement.job == job
        assert one.project.result(name).granted == pytest.approx(
            receipt.statement.granted, abs=1e-6
        )
        await one.volunteer.task_gone(name)
        await one.clean()
