"""Credit by trickles: their running time is that of the ledger, over a restart as well."""

import logging
import re
from pathlib import Path

import pytest

from tests.harness.boinc.patience import until
from tests.harness.boinc.payloads import spin
from tests.harness.boinc.requests import Trickle
from tests.harness.boinc.world import VM, World, world

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

SETTINGS = VM + '[credit]\nway = "trickles"\ntrickle_seconds = 5\n'


async def test_their_sum_is_the_ledger(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=SETTINGS) as one:
        first = await one.submit(*spin(150_000))
        (name,) = await one.work()
        await one.started(name)
        await one.ended(first, 240)
        await one.project.trickle(1)
        second = await one.submit(*spin(400_000))
        await one.guest(await one.started(name), "working")
        await one.volunteer.quit()
        await one.clean()
        await one.volunteer.start()
        await one.ended(second, 300)
        await told(one)
        # the last one: of a job whose receipt comes just before the task ends
        third = await one.submit(*spin(50_000))
        await one.guest(await one.started(name), "working")
        one.project.send_trickle(name, "<finish/>")
        await one.volunteer.project(one.project.url, "update")
        report = await one.project.reported(name, 240)
        assert report.succeeded, report.stderr
        await one.reached(third, "succeeded")
        await told(one)
        assert len(one.receipts(report)) == 3
        assert len(one.project.trickles) == 3
        await one.volunteer.task_gone(name)
        await one.clean()


async def told(one: World) -> None:
    """Until trickles have come for all that the ledger holds."""
    ledger = (await one.client.credit.total()).cpu_seconds

    async def all_of_it() -> bool:
        return sum(map(running_time, one.project.trickles)) > 0.98 * ledger

    await until(all_of_it, "the trickles", 60)
    sums = [running_time(trickle) for trickle in one.project.trickles]
    log.info("trickled %s = %.3f s, in the ledger %.3f s", sums, sum(sums), ledger)
    assert sum(sums) == pytest.approx(ledger, rel=0.02)


def running_time(trickle: Trickle) -> float:
    """As a stock trickle_credit reads it: the first such tag, and it must be above zero."""
    assert trickle.variety == "copilot_runtime"
    found = re.search("<runtime>([^<]*)</runtime>", trickle.body)
    assert found is not None
    assert float(found[1]) > 0
    return float(found[1])
