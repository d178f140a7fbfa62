"""A volunteer aborts a task: everything of it is gone soon, and its job is given back."""

import asyncio
import logging
import time
import urllib.request
from pathlib import Path

import pytest

from tests.harness.boinc.patience import until
from tests.harness.boinc.payloads import FOREVER
from tests.harness.boinc.tasks import Task
from tests.harness.boinc.world import VM, World, world

pytestmark = pytest.mark.vm

log = logging.getLogger(__name__)

ABORTED_BY_USER = 203
GONE_SECONDS = 10.0


async def test_while_a_job_runs(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        job = await one.submit(*FOREVER)
        (name,) = await one.work()
        await one.guest(await one.started(name), "working")
        task = await one.volunteer.task(name, lambda t: t.web_page != "", "with a page")
        text = await page(task)
        assert "<h1>Working on a job</h1>" in text
        assert "0 jobs succeeded, 0 failed" in text
        await it_is_aborted(one, name)
        view = await one.reached(job, "waiting")
        assert view.attempts_charged == 0
        assert [attempt.charged for attempt in view.attempts] == [False]
        assert not one.volunteer.slots()
        await one.clean()


@pytest.mark.boinc
async def test_during_boot_and_while_paused(tmp_path: Path, application: Path) -> None:
    preferences = {"leave_apps_in_memory": 1}
    async with world(tmp_path, application, settings=VM, preferences=preferences) as one:
        (name,) = await one.work()
        await one.vm(await one.started(name), "booting")
        await it_is_aborted(one, name)
        job = await one.submit(*FOREVER)
        (name,) = await one.work()
        await one.volunteer.project(one.project.url, "update")
        task = await one.started(name)
        await one.guest(task, "working")
        await one.volunteer.order(task, "suspend")
        await one.vm(task, "paused")
        await it_is_aborted(one, name)
        view = await one.reached(job, "waiting")
        assert view.attempts_charged == 0
        assert not one.volunteer.slots()
        await one.clean()


async def page(task: Task) -> str:
    def read() -> str:
        with urllib.request.urlopen(task.web_page, timeout=10) as reply:  # noqa: S310
            return str(reply.read().decode())

    return await asyncio.to_thread(read)


async def one_of(pids: list[int]) -> bool:
    return len(pids) == 1


async def it_is_aborted(one: World, name: str) -> None:
    await until(lambda: one_of(one.hypervisors()), "its VM", 30)
    began = time.monotonic()
    await one.volunteer.boinccmd("--task", one.project.url, name, "abort")
    await one.clean(GONE_SECONDS)
    log.info("nothing left %.1f s after the abort", time.monotonic() - began)
    # by itself a client waits two minutes after an error
    await one.volunteer.task(name, lambda task: task.ready_to_report, "ready to report")
    await one.volunteer.project(one.project.url, "update")
    report = await one.project.reported(name)
    assert report.exit_status == ABORTED_BY_USER
    await one.volunteer.task_gone(name)
