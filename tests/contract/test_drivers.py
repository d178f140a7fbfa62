"""What every driver must do, whoever wrote it: run over the fake one and over QEMU."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from copilot_agent.protocol.guest import Welcome
from tests.harness import scripted_vm
from vm_launcher.drivers.base import (
    Driver,
    DriverError,
    GuestStopped,
    Handle,
    HypervisorFailed,
    SavedStateError,
    VmEvent,
    VmSpec,
)
from vm_launcher.drivers.fake import FakeDriver
from vm_launcher.drivers.qemu import QemuDriver
from vm_launcher.drivers.qemu.process import is_alive

HELLO_SECONDS = 90.0


class Bench(ABC):
    """A kind of driver, and what a test needs to know besides its interface."""

    spec: VmSpec

    @abstractmethod
    def driver(self) -> Driver:
        """A new object, as in a new launcher."""

    @abstractmethod
    def kill_hypervisor(self, driver: Driver, handle: Handle) -> None: ...

    @abstractmethod
    async def end_guest(self, driver: Driver, handle: Handle, ctrl: "Ctrl") -> None: ...

    @abstractmethod
    def runs(self, handle: Handle) -> bool:
        """Whether the hypervisor of that handle is alive, as the operating system sees it."""


class FakeBench(Bench):
    def __init__(self, home: Path) -> None:
        self.spec = VmSpec(
            name="vm-test",
            directory=home / "vm",
            ctrl_socket=home / "ctrl",
            net_socket=home / "net",
            kernel=home,
            initrd=home,
            command_line="",
            image_sha256="0" * 64,
        )

    def driver(self) -> Driver:
        return FakeDriver()

    def kill_hypervisor(self, driver: Driver, handle: Handle) -> None:
        cast(FakeDriver, driver).crash(handle.spec.name)

    async def end_guest(self, driver: Driver, handle: Handle, ctrl: "Ctrl") -> None:
        cast(FakeDriver, driver).shut_down(handle.spec.name)

    def runs(self, handle: Handle) -> bool:
        return False


class QemuBench(Bench):
    def __init__(self, image: scripted_vm.ScriptedImage, home: Path) -> None:
        self.spec = scripted_vm.spec(image.image, home)

    def driver(self) -> Driver:
        return QemuDriver()

    def kill_hypervisor(self, driver: Driver, handle: Handle) -> None:
        assert handle.process is not None
        os.kill(handle.process.pid, signal.SIGKILL)

    async def end_guest(self, driver: Driver, handle: Handle, ctrl: "Ctrl") -> None:
        await ctrl.hello()
        ctrl.send(type="x-poweroff")

    def runs(self, handle: Handle) -> bool:
        return handle.process is not None and is_alive(handle.process)


class Ctrl:
    """The test's own end of the ctrl port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, spec: VmSpec) -> "Ctrl":
        return cls(*await asyncio.open_unix_connection(spec.ctrl_socket))

    def send(self, **message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self, kind: str, timeout: float = 20.0) -> dict[str, object]:
        async with asyncio.timeout(timeout):
            while line := await self._reader.readline():
                message = json.loads(line)
                if message["type"] == kind:
                    return cast(dict[str, object], message)
        raise AssertionError("the guest's end was closed")

    async def hello(self) -> dict[str, object]:
        return await self.receive("hello", HELLO_SECONDS)

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """Short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="drv-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> scripted_vm.ScriptedImage:
    return scripted_vm.scripted_image(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.vm)])
def bench(request: pytest.FixtureRequest, home: Path) -> Bench:
    if request.param == "fake":
        return FakeBench(home)
    return QemuBench(request.getfixturevalue("image"), home)


@pytest.fixture
async def driver(bench: Bench) -> AsyncIterator[Driver]:
    driver = bench.driver()
    yield driver
    await driver.destroy(Handle(driver=driver.name, spec=bench.spec))


async def last_event(driver: Driver, handle: Handle) -> VmEvent | None:
    """Listens until the stream ends."""
    last = None
    async with asyncio.timeout(30):
        async for event in driver.events(handle):
            last = event
    return last


async def test_a_whole_life(bench: Bench, driver: Driver) -> None:
    handle = await driver.create(bench.spec)
    assert await driver.create(bench.spec) == handle, "creating twice is as good as once"
    handle = await driver.start(handle)
    ctrl = await Ctrl.connect(bench.spec)
    assert (await ctrl.hello())["epoch"] == 1
    before = await driver.usage(handle)
    assert before.cpu_seconds > 0

    handle = await driver.pause(handle)
    welcome = Welcome(time=0, manager="http://x", cores=1, memory_mib=0, disk_mib=0)
    ctrl.send(**welcome.model_dump())
    with pytest.raises(TimeoutError):
        await ctrl.receive("ready", timeout=0.3)
    handle = await driver.resume(handle)
    await ctrl.receive("ready")

    handle = await driver.save(handle)
    ctrl.close()
    assert handle.saved is not None
    assert not bench.runs(handle)
    handle = Handle.model_validate_json(handle.model_dump_json())
    later = bench.driver()
    other_image = bench.spec.model_copy(update={"image_sha256": "f" * 64})
    with pytest.raises(SavedStateError, match="changed"):
        await later.restore(handle, other_image)

    handle = await later.restore(handle, bench.spec)
    handle = await later.resume(handle)
    assert handle.saved is None, "a state is good for one restore"
    ctrl = await Ctrl.connect(bench.spec)
    ctrl.send(type="resumed", time=0.0)
    if isinstance(later, QemuDriver):
        assert (await ctrl.hello())["epoch"] == 2, "the guest's memory has survived"
    assert (await later.usage(handle)).cpu_seconds >= before.cpu_seconds

    handle = await later.stop(handle, timeout=5)
    assert await later.stop(handle, timeout=5) == handle, "stopping twice is as good as once"
    await later.destroy(handle)
    await later.destroy(handle)
    assert list(bench.spec.directory.parent.iterdir()) == [], "nothing is left"
    ctrl.close()


async def test_a_vm_rests_without_a_word(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    ctrl = await Ctrl.connect(bench.spec)
    await ctrl.hello()
    await driver.limit(handle, 0)
    welcome = Welcome(time=0, manager="http://x", cores=1, memory_mib=0, disk_mib=0)
    ctrl.send(**welcome.model_dump())
    with pytest.raises(TimeoutError):
        await ctrl.receive("ready", timeout=0.3)
    await driver.limit(handle, 50)
    await ctrl.receive("ready")
    await driver.limit(handle, 100)
    ctrl.close()
    await driver.stop(handle, timeout=0)


async def test_a_killed_hypervisor_is_noticed(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    listening = asyncio.create_task(last_event(driver, handle))
    await asyncio.sleep(0)  # it listens now
    bench.kill_hypervisor(driver, handle)
    assert isinstance(await listening, HypervisorFailed)
    await driver.destroy(handle)
    assert list(bench.spec.directory.parent.iterdir()) == []


async def test_a_guest_that_ends_is_noticed(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    listening = asyncio.create_task(last_event(driver, handle))
    ctrl = await Ctrl.connect(bench.spec)
    await bench.end_guest(driver, handle, ctrl)
    assert isinstance(await listening, GuestStopped)
    ctrl.close()
    await driver.destroy(handle)


async def test_another_launcher_reclaims(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    kept = Handle.model_validate_json(handle.model_dump_json())
    await bench.driver().destroy(kept)
    assert not bench.runs(kept)
    assert not bench.spec.directory.exists()
    await driver.stop(handle, timeout=0)


async def test_an_asked_for_stop_is_no_event(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    listening = asyncio.create_task(last_event(driver, handle))
    await asyncio.sleep(0)  # it listens now
    await driver.stop(handle, timeout=5)
    assert await listening is None


async def test_what_does_not_run_cannot_be_paused(bench: Bench, driver: Driver) -> None:
    handle = await driver.create(bench.spec)
    for call in (driver.pause, driver.resume, driver.save):
        with pytest.raises(DriverError):
            await call(handle)


async def test_one_vm_starts_once(bench: Bench, driver: Driver) -> None:
    handle = await driver.start(await driver.create(bench.spec))
    with pytest.raises(DriverError):
        await driver.start(handle)
    await driver.stop(handle, timeout=0)


async def test_fingerprint_says_what_it_is(driver: Driver) -> None:
    found = await driver.fingerprint()
    assert found.driver == driver.name
    assert found.version
    assert found.problem == ""
