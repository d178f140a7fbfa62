"""A computer with two processors runs two tasks at once."""

import asyncio
from pathlib import Path

import pytest

from tests.harness import programs
from tests.harness.boinc.world import VM, world
from tests.harness.jobs import succeeded_once

pytestmark = [pytest.mark.vm, pytest.mark.boinc]


async def test_two_tasks_share_nothing_and_both_are_credited(
    tmp_path: Path, application: Path
) -> None:
    no_spare = "window = 0\n"  # else one of them takes both jobs
    async with world(tmp_path, application, settings=no_spare + VM, ncpus=2) as one:
        names = [*await one.work(), *await one.work()]
        tasks = [await one.started(name) for name in names]
        await asyncio.gather(*(one.guest(task, "idle") for task in tasks))
        jobs = [await one.busy(15), await one.busy(15)]
        statuses = await asyncio.gather(*(one.guest(task, "working") for task in tasks))
        assert len({task.pid for task in tasks}) == 2
        assert len({task.slot for task in tasks}) == 2
        assert len({status.pilot for status in statuses}) == 2
        assert len(one.hypervisors()) == 2
        assert all(status.jobs_running == 1 for status in statuses)
        for job in jobs:
            succeeded_once(await one.ended(job, 180))

        late = await one.busy(25)
        (attempt,) = (await one.reached(late, "running", 30)).attempts
        own, other = sorted(
            zip(names, statuses, strict=True), key=lambda each: each[1].pilot != attempt.pilot
        )
        ending = asyncio.create_task(one.finished(other[0]))
        await programs.eventually(lambda: len(one.hypervisors()) == 1, 60, "one VM has ended")
        await one.stays(late, "running", 1.0)
        ended = [await ending]
        succeeded_once(await one.ended(late, 120))
        ended.append(await one.finished(own[0]))
        receipts = [one.receipts(report) for report in ended]
        assert [len(each) for each in receipts] == [1, 2]
        statements = [receipt.statement for each in receipts for receipt in each]
        assert {each.job for each in statements} == {*jobs, late}
        assert len({each.launcher for each in statements}) == 2
        assert len({each.enrolment for each in statements}) == 2
        granted = sum(each.granted for each in statements)
        assert one.project.credit == pytest.approx(granted, abs=1e-6)
        await one.clean()
