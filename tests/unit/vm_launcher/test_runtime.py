"""The whole launcher over the fake driver: real sockets, real files, no hypervisor."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from copilot_agent.protocol.guest import Welcome
from vm_launcher.core.events import Ask, End, Outcome
from vm_launcher.core.states import Rules, State
from vm_launcher.drivers.base import Handle, VmSpec
from vm_launcher.drivers.fake import Behaviour, FakeDriver
from vm_launcher.egress import AllowList, Egress
from vm_launcher.host_words import Voice
from vm_launcher.identity import Identity
from vm_launcher.report import Reporter
from vm_launcher.runtime import Launcher, Parts
from vm_launcher.state import StateDirectory, Status

QUICK = Rules(pause_seconds=0.05, stop_seconds=0.05, first_wait=0.01)


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="run-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def parts(home: Path) -> Parts:
    state = StateDirectory(home)
    sockets = state.socket_directory()
    spec = VmSpec(
        name="vm",
        directory=state.vm,
        ctrl_socket=sockets / "ctrl",
        net_socket=sockets / "net",
        kernel=home,
        initrd=home,
        command_line="",
        image_sha256="0" * 64,
    )
    return Parts(
        driver=FakeDriver(),
        spec=spec,
        rules=QUICK,
        voice=Voice(
            Identity.load(state.key),
            "s" * 43,
            Welcome(time=0, manager="http://m.example", cores=1, memory_mib=1, disk_mib=1),
        ),
        egress=Egress(AllowList([])),
        state=state,
        reporter=Reporter(state, Status()),
    )


class Watched:
    def __init__(self, launcher: Launcher, running: asyncio.Task[End], status: Status) -> None:
        self.launcher = launcher
        self.running = running
        self.status = status

    async def until(self, true: Callable[[], bool]) -> None:
        """Looks again whenever the launcher has handled something."""
        async with asyncio.timeout(10):
            while not true():
                await self.launcher.wait_for(lambda _: true(), timeout=0.2)

    async def idle(self) -> None:
        await self.until(lambda: self.status.guest_state == "idle")

    async def state(self, state: State) -> None:
        await self.until(lambda: self.launcher.state is state)

    async def end(self) -> End:
        async with asyncio.timeout(10):
            return await self.running


@asynccontextmanager
async def launched(parts: Parts) -> AsyncIterator[Watched]:
    launcher = Launcher(parts)
    running = asyncio.create_task(launcher.run())
    try:
        yield Watched(launcher, running, parts.reporter.status)
    finally:
        running.cancel()
        await asyncio.wait([running])


def left_behind(home: Path) -> set[str]:
    return {entry.name for entry in home.iterdir()} - {"launcher.key", "status.json"}


async def test_the_pilot_is_enrolled_and_stop_leaves_nothing(parts: Parts, home: Path) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        assert vm.status.vm_boot_seconds is not None
        assert vm.status.ready_seconds is not None
        vm.launcher.ask(Ask.STOP)
        assert (await vm.end()).outcome is Outcome.STOPPED
    assert left_behind(home) == set()


async def test_pause_and_resume(parts: Parts) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        vm.launcher.ask(Ask.PAUSE)
        await vm.state(State.PAUSED)
        vm.launcher.ask(Ask.RESUME)
        await vm.state(State.RUNNING)
        await vm.idle()


async def test_the_guest_hears_what_its_vm_has_cost(parts: Parts) -> None:
    driver = FakeDriver()
    async with launched(replace(parts, driver=driver)) as vm:
        await vm.idle()
        told = driver.guest("vm").told_cpu_seconds
        await vm.until(lambda: bool(told))
        assert 0.0 < told[0] <= vm.status.cpu_seconds


async def test_a_deaf_guest_is_paused_and_stopped_all_the_same(parts: Parts) -> None:
    parts = replace(parts, driver=FakeDriver(Behaviour(deaf=True)))
    async with launched(parts) as vm:
        await vm.idle()
        vm.launcher.ask(Ask.PAUSE)
        await vm.state(State.PAUSED)
        vm.launcher.ask(Ask.STOP)
        assert (await vm.end()).outcome is Outcome.STOPPED


async def test_save_and_go_on(parts: Parts, home: Path) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        vm.launcher.ask(Ask.SAVE)
        assert (await vm.end()).outcome is Outcome.SAVED
    assert left_behind(home) == {"vm", "handle.json"}
    parts.state.socket_directory()
    parts = replace(parts, driver=FakeDriver(), reporter=Reporter(parts.state, Status()))
    async with launched(parts) as vm:
        await vm.idle()
        assert vm.status.restore_seconds is not None, "restored, not booted"
        vm.launcher.ask(Ask.STOP)
        await vm.end()
    assert left_behind(home) == set()


async def test_a_saved_vm_of_another_image_gives_way(parts: Parts) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        vm.launcher.ask(Ask.SAVE)
        await vm.end()
    parts.state.socket_directory()
    newer = parts.spec.model_copy(update={"image_sha256": "1" * 64})
    reporter = Reporter(parts.state, Status())
    async with launched(replace(parts, spec=newer, reporter=reporter)) as vm:
        await vm.idle()
        assert vm.status.restore_seconds is None
        assert any("given up" in text for text in vm.status.messages)


async def test_what_an_earlier_launcher_left_is_removed_first(parts: Parts, home: Path) -> None:
    leftover = parts.spec.directory / "scratch.qcow2"
    leftover.parent.mkdir()
    leftover.write_text("old")
    parts.state.keep_handle(Handle(driver="fake", spec=parts.spec))
    async with launched(parts) as vm:
        await vm.idle()
        assert not leftover.exists()
        assert any("left a VM behind" in text for text in vm.status.messages)


async def test_a_crash_boots_anew_and_at_last_gives_up(parts: Parts, home: Path) -> None:
    crashing = FakeDriver(Behaviour(crash_after_hello=True))
    rules = replace(QUICK, restarts=2)
    async with launched(replace(parts, driver=crashing, rules=rules)) as vm:
        end = await vm.end()
        assert (end.outcome, vm.status.boots) == (Outcome.FAILED, 3)
    assert left_behind(home) == set()


async def test_a_guest_that_never_boots_is_tried_under_emulation(parts: Parts) -> None:
    rules = replace(QUICK, accelerators=("kvm", "tcg"), boot_seconds={"kvm": 0.05, "tcg": 0.05})
    silent = FakeDriver(Behaviour(never_boots=True))
    async with launched(replace(parts, driver=silent, rules=rules)) as vm:
        end = await vm.end()
        assert end.outcome is Outcome.FAILED
        assert "no hello" in end.message
        assert (vm.status.boots, vm.status.accelerator) == (2, "tcg")


async def test_a_hypervisor_that_does_not_start_is_told_with_its_remedy(parts: Parts) -> None:
    broken = FakeDriver(Behaviour(start_error="out of order"))
    async with launched(replace(parts, driver=broken)) as vm:
        end = await vm.end()
        assert "out of order" in end.message
        assert end.remedy == "use another driver"


async def test_stop_at_once_does_not_wait_for_a_slow_boot(parts: Parts, home: Path) -> None:
    slow = FakeDriver(Behaviour(boot_seconds=3600))
    async with launched(replace(parts, driver=slow)) as vm:
        await vm.state(State.BOOTING)
        vm.launcher.ask(Ask.STOP_NOW)
        assert (await vm.end()).outcome is Outcome.STOPPED
    assert left_behind(home) == set()


async def test_finish(parts: Parts) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        vm.launcher.ask(Ask.FINISH)
        assert (await vm.end()).outcome is Outcome.FINISHED


async def test_a_cancelled_launcher_leaves_nothing(parts: Parts, home: Path) -> None:
    async with launched(parts) as vm:
        await vm.idle()
    assert left_behind(home) <= {"console.log"}


async def test_the_status_file_tells_others(parts: Parts) -> None:
    async with launched(parts) as vm:
        await vm.idle()
        written = parts.state.read_status()
        assert written is not None
        assert written.state == "running"
        assert written.updated == pytest.approx(time.time(), abs=30)
