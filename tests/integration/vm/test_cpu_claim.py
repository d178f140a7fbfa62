"""What a job in a real VM claims of its CPU time, beside what QEMU has used meanwhile."""

import asyncio
import logging
import shutil
import tempfile
import time
from bisect import bisect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import programs, scripted_vm
from tests.harness.jobs import Jobs, succeeded_once
from vm_launcher.assembly import assemble
from vm_launcher.drivers.qemu import process
from vm_launcher.runtime import Launcher
from vm_launcher.settings import Settings, VmSettings
from vm_launcher.state import StateDirectory, Status

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

log = logging.getLogger(__name__)

TOLERANCE = 0.25
SPIN = """
import time
begin = time.time()
while time.time() < begin + {seconds}:
    sum(range(1000))
print(begin, time.time(), time.process_time())
"""


@dataclass(frozen=True)
class Spun:
    """CPU seconds of one job."""

    claimed: float
    guest: float
    """By the guest's own account."""
    host: float
    """Of QEMU while the job spun; before and after that the agent takes a good part."""

    @property
    def fair(self) -> float:
        return min(self.guest, self.host)


class Meter:
    """QEMU's CPU time, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._times: list[float] = []
        self._used: list[float] = []

    async def run(self) -> None:
        while True:
            self._times.append(time.time())
            self._used.append(process.cpu_seconds(self._pid))
            await asyncio.sleep(0.1)

    def between(self, begin: float, end: float) -> float:
        return self._used[bisect(self._times, end) - 1] - self._used[bisect(self._times, begin)]


@dataclass
class Station(Jobs):
    launcher: Launcher

    async def spin(self, seconds: float) -> Spun:
        pid = self.launcher.vm_pid
        assert pid is not None
        meter = Meter(pid)
        metering = asyncio.create_task(meter.run())
        try:
            job = await self.submit("python3", "-c", SPIN.format(seconds=seconds))
            view = await self.ended(job, 120)
        finally:
            metering.cancel()
        succeeded_once(view)
        begin, end, guest = map(float, (await self.client.jobs.logs(job)).text.split())
        claimed = view.attempts[-1].usage.cpu_seconds
        spun = Spun(claimed, guest, meter.between(begin, end))
        log.info("CPU seconds of a job at %d %%: %s", self.launcher.cpu.percent, spun)
        return spun


@asynccontextmanager
async def in_this_process(
    manager: programs.ManagerProgram, secret: Path
) -> AsyncIterator[tuple[Launcher, Status]]:
    """So that the limit can be changed as BOINC's client does it, without a new boot."""
    image = scripted_vm.built_image()
    home = Path(tempfile.mkdtemp(prefix="vml-"))
    settings = Settings(
        manager=manager.url,
        image=image,
        image_key=image / "image-key.pub",
        enrolment_file=secret,
        state=home / "state",
        vm=VmSettings(disk_mib=512, boot_seconds_tcg=240),
    )
    state = StateDirectory(settings.state)
    state.lock()
    made = await assemble(settings, state)
    running = asyncio.create_task(made.launcher.run())
    try:
        yield made.launcher, made.reporter.status
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        state.unlock()
        shutil.rmtree(home)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def station(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Station]:
    root = tmp_path_factory.mktemp("claim")
    async with programs.manager(root / "manager") as manager:
        secret = await manager.enrolment()
        async with (
            in_this_process(manager, secret) as (launcher, status),
            programs.client(manager) as client,
        ):
            await programs.eventually(lambda: status.guest_state == "idle", 240, "an idle pilot")
            yield Station(client, launcher)


async def test_without_a_limit_a_job_claims_what_it_got(station: Station) -> None:
    spun = await station.spin(10)
    assert spun.claimed == pytest.approx(spun.fair, rel=TOLERANCE)


async def test_at_a_limit_a_job_claims_no_more_than_qemu_used(station: Station) -> None:
    await station.launcher.cpu.change(40)
    spun = await station.spin(20)
    assert spun.guest > 1.5 * spun.host, "the guest does not notice that it is slowed down"
    assert spun.claimed == pytest.approx(spun.host, rel=TOLERANCE)
