"""The volunteer lets BOINC use half of the processor's time."""

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.boinc.world import VM, World, world
from vm_launcher.drivers.qemu.process import cpu_seconds

pytestmark = [pytest.mark.vm, pytest.mark.boinc]

log = logging.getLogger(__name__)

WATCHED_SECONDS = 12.0
PAUSED = "vm pausing"
ORDERED = "the client says suspend"


@dataclass(frozen=True)
class Watched:
    """Shares of the time that a hypervisor was watched."""

    cpu: float
    stopped: float
    """Its process was made to rest; unlike `cpu` this is the same on a busy computer."""


async def watch(pid: int, seconds: float = WATCHED_SECONDS) -> Watched:
    began, before = time.monotonic(), cpu_seconds(pid)
    looks: list[bool] = []
    while (passed := time.monotonic() - began) < seconds:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        looks.append(state == "T")
        await asyncio.sleep(0.013)  # no multiple of the duty cycle's 0.1 s
    return Watched((cpu_seconds(pid) - before) / passed, sum(looks) / len(looks))


async def never_paused(one: World, pilot: str) -> None:
    """Until cancelled."""
    while True:
        states = {each.id: each.state for each in (await one.client.pilots.list()).items}
        assert states[pilot] == "alive"
        await asyncio.sleep(0.2)


async def test_half_of_the_processor_without_a_pause(tmp_path: Path, application: Path) -> None:
    async with world(tmp_path, application, settings=VM) as one:
        await one.busy(1000)
        (name,) = await one.work()
        task = await one.started(name)
        pilot = (await one.guest(task, "working")).pilot
        (qemu,) = one.hypervisors()
        watching = asyncio.create_task(never_paused(one, pilot))
        await one.volunteer.prefer(cpu_usage_limit=50)
        await one.says(task, lambda status: status.cpu_percent == 50)
        throttled = await watch(qemu)
        log.info("at 50 %%: %s", throttled)
        assert 0.35 <= throttled.stopped <= 0.65
        assert throttled.cpu <= 0.65

        await one.volunteer.prefer(cpu_usage_limit=100)
        await one.says(task, lambda status: status.cpu_percent == 100)
        free = await watch(qemu)
        log.info("at 100 %%: %s", free)
        assert free.stopped == 0
        assert not watching.done()
        watching.cancel()
        assert ORDERED not in one.said()
        assert PAUSED not in one.said()

        began = time.monotonic()
        await one.volunteer.order(task, "abort")
        await one.clean()
        log.info("aborted: nothing is left %.1f s after the order", time.monotonic() - began)


async def test_a_client_that_throttles_by_suspending_is_not_announced(
    tmp_path: Path, application: Path
) -> None:
    """Without <dont_throttle/> it suspends every second; only its first time can be a real one."""
    async with world(tmp_path, application, settings=VM, without=("dont_throttle",)) as one:
        await one.busy(1000)
        (name,) = await one.work()
        task = await one.started(name)
        status = await one.guest(task, "working")
        await one.volunteer.prefer(cpu_usage_limit=50)

        def suspended(times: int) -> bool:
            return one.said().count(ORDERED) >= times

        await one.says(task, lambda _: suspended(5), 60)
        await one.pilot(status, "alive", 90)
        watching = asyncio.create_task(never_paused(one, status.pilot))
        (qemu,) = one.hypervisors()
        throttled = await watch(qemu)
        log.info("suspended and resumed: %s", throttled)
        assert 0.35 <= throttled.stopped <= 0.65, "our own limit does not come on top of it"
        assert suspended(8)
        assert not watching.done()
        watching.cancel()
        assert one.said().count(PAUSED) <= 1
        await one.volunteer.prefer(cpu_usage_limit=100)
        await one.says(task, lambda status: status.cpu_percent == 100)
        await one.volunteer.order(task, "abort")
        await one.clean()
