"""The launcher, or the client, is killed in the middle of a job."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from tests.harness import programs
from tests.harness.boinc.world import VM, World, world
from tests.harness.jobs import succeeded_once

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)


async def never_two(one: World, seen: set[int]) -> None:
    """Looks at all hypervisors without a break, until cancelled."""
    while True:
        now = one.hypervisors()
        assert len(now) <= 1, now
        seen.update(now)
        await asyncio.sleep(0.01)


async def test_a_killed_launcher_is_started_again_and_never_are_there_two_vms(
    tmp_path: Path, application: Path
) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        job = await one.busy(15)
        (name,) = await one.work()
        task = await one.started(name)
        await one.guest(task, "working")
        (qemu,) = one.hypervisors()
        (unpacked,) = one.volunteer.slot(task).glob(f".vm-launcher-{task.pid}-*")
        seen: set[int] = set()
        watching = asyncio.create_task(never_two(one, seen))

        began = time.monotonic()
        programs.kill(task.pid)
        await programs.eventually(lambda: not programs.alive(qemu), 10, "its VM is gone")
        log.info("its VM is gone after %.2f s", time.monotonic() - began)
        again = await one.volunteer.task(name, lambda now: now.pid not in (0, task.pid))
        log.info("the client started another one after %.2f s", time.monotonic() - began)
        after = await one.says(again, lambda now: now.pid == again.pid and now.boots > 0)
        assert not unpacked.exists()
        await one.guest(again, "working")
        log.info("working again after %.2f s", time.monotonic() - began)
        assert not watching.done()
        watching.cancel()
        assert len(seen) == 2

        view = await one.ended(job, 120)
        succeeded_once(view)
        first, second = view.attempts
        assert not first.charged
        assert first.host == second.host
        assert first.pilot != second.pilot
        report = await one.finished(name)
        (receipt,) = one.receipts(report)
        assert (receipt.statement.job, receipt.statement.attempt) == (job, 2)
        assert one.project.credit == pytest.approx(receipt.statement.granted, abs=1e-6)
        assert after.outcome == ""
        await one.clean()


async def test_without_its_client_the_task_saves_its_vm_and_leaves(
    tmp_path: Path, application: Path
) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        job = await one.busy(15)
        (name,) = await one.work()
        task = await one.started(name)
        before = await one.guest(task, "working")
        began = time.monotonic()
        await one.volunteer.kill9()
        await one.clean(60)
        log.info("nothing is left %.1f s after the client's death", time.monotonic() - began)
        assert one.status(task).state == "saved"

        await one.volunteer.start()
        after = await one.says(task, lambda now: now.state == "running", 60)
        assert after.restore_seconds is not None
        view = await one.ended(job, 120)
        succeeded_once(view)
        assert [(each.attempt, each.pilot) for each in view.attempts] == [(1, before.pilot)]
        report = await one.finished(name)
        (receipt,) = one.receipts(report)
        assert receipt.statement.job == job
        await one.clean()
