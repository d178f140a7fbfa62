"""`vm-launcher` as its owner uses it: real QEMU, the built image, a scripted guest."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import scripted_vm
from tests.harness.vm import left_behind
from vm_launcher.drivers.base import Handle

pytestmark = pytest.mark.vm

COMMAND = [sys.executable, "-m", "vm_launcher"]
BOOT_SECONDS = 90.0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> scripted_vm.ScriptedImage:
    return scripted_vm.scripted_image(tmp_path_factory.mktemp("scripted"))


@pytest.fixture
def state() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="vml-"))
    (home / "secret").write_text("s" * 43 + "\n")
    yield home / "state"
    shutil.rmtree(home)


def call(command: str, state: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, command, "--state", str(state), *more],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=scripted_vm.REPOSITORY,
    )


class Launched:
    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self.process = process
        self._state = state

    def status(self) -> dict[str, Any]:
        path = self._state / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("pid") == self.process.pid else {}

    def handle(self) -> Handle:
        return Handle.model_validate_json((self._state / "handle.json").read_bytes())

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(BOOT_SECONDS):
            while not true(status := self.status()):
                assert self.process.returncode is None, "the launcher has ended"
                await asyncio.sleep(0.02)
        return status

    async def idle(self) -> dict[str, Any]:
        return await self.until(lambda status: status.get("guest_state") == "idle")

    async def exit_code(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def launched(
    image: scripted_vm.ScriptedImage, state: Path, *more: str
) -> AsyncIterator[Launched]:
    with (state.parent / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *[*COMMAND, "run", "--manager", "http://127.0.0.1:9", "--state", str(state)],
            *["--image", str(image.directory), "--image-key", str(image.key_file)],
            *["--enrolment-file", str(state.parent / "secret"), "--disk", "256", *more],
            cwd=scripted_vm.REPOSITORY,
            stderr=log,
        )
    try:
        yield Launched(process, state)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_from_the_first_boot_to_the_last_word(
    image: scripted_vm.ScriptedImage, state: Path
) -> None:
    async with launched(image, state) as vm:
        status = await vm.idle()
        assert status["vm_boot_seconds"] > 0
        assert status["ready_seconds"] >= status["vm_boot_seconds"]
        assert status["image_sha256"] == image.image.sha256
        assert status["kernel"].startswith("linux-image")
        check_confinement(vm.handle())

        async with launched(image, state) as second:
            assert await second.exit_code() == 5
            assert f"pid {vm.process.pid}" in (state.parent / "log").read_text()

        assert call("pause", state).stdout == "the VM is paused\n"
        rested = (await vm.until(lambda now: now["state"] == "paused"))["cpu_seconds"]
        await asyncio.sleep(1.5)  # the time that the VM rests, as it is measured
        assert vm.status()["cpu_seconds"] - rested < 0.2, "a paused VM takes no CPU"
        assert call("resume", state).returncode == 0
        await vm.until(lambda now: now["state"] == "running")

        assert vm.status()["pause_seconds"] < 0.25  # 2 ms on an idle host
        assert call("save", state).stdout == "the VM is saved\n"
        assert await vm.exit_code() == 0
        ended = json.loads((state / "status.json").read_text())
        assert ended["save_seconds"] < 2.0
        assert left_behind(state) == {"vm", "handle.json"}

    async with launched(image, state) as vm:
        status = await vm.idle()
        assert status["restore_seconds"] < 3.0
        assert status["vm_boot_seconds"] is None, "it was not booted"
        assert status["cpu_seconds"] >= rested, "CPU time is counted over the restore"
        assert "running" in call("status", state).stdout
        assert call("finish", state).returncode == 0
        assert await vm.exit_code() == 0
    assert left_behind(state) == set()


def check_confinement(handle: Handle) -> None:
    """Not root, no new rights, system calls filtered, no network card, the secret nowhere."""
    assert handle.process is not None
    status = Path(f"/proc/{handle.process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert fields["Uid"].split()[0] != "0"
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    command = Path(f"/proc/{handle.process.pid}/cmdline").read_bytes()
    assert b"netdev" not in command
    assert b"sss" not in command
    assert b"sss" not in Path(f"/proc/{handle.process.pid}/environ").read_bytes()


async def test_a_guest_that_takes_too_long_is_an_error_with_a_remedy(
    image: scripted_vm.ScriptedImage, state: Path
) -> None:
    config = state.parent / "launcher.toml"
    config.write_text("[vm]\nboot_seconds_tcg = 1\naccelerator = 'tcg'\n")
    async with launched(image, state, "--config", str(config)) as vm:
        assert await vm.exit_code() == 4
    log = (state.parent / "log").read_text()
    assert "no hello from the guest within 1 s under tcg" in log
    assert "boot_seconds" in log
    assert left_behind(state) == {"console.log"}


async def test_without_space_no_vm_is_started(
    image: scripted_vm.ScriptedImage, state: Path
) -> None:
    async with launched(image, state, "--disk", str(1 << 26)) as vm:
        assert await vm.exit_code() == 4
    assert "MiB are free" in (state.parent / "log").read_text()
    assert left_behind(state) == set()


async def test_a_tampered_image_is_not_booted(
    image: scripted_vm.ScriptedImage, state: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "image"
    shutil.copytree(image.directory, copy)
    with (copy / image.image.manifest.layer("agent").file).open("r+b") as layer:
        layer.seek(100)
        layer.write(b"evil")
    tampered = scripted_vm.ScriptedImage(copy, image.key_file, image.image)
    async with launched(tampered, state) as vm:
        assert await vm.exit_code() == 3


async def test_a_vm_limited_to_a_quarter_of_a_cpu(
    image: scripted_vm.ScriptedImage, state: Path
) -> None:
    async with launched(image, state, "--cpu-percent", "25") as vm:
        await vm.until(lambda status: status.get("state") == "booting")
        before, start = vm.status()["cpu_seconds"], time.monotonic()
        await asyncio.sleep(3)  # the span that is measured
        share = (vm.status()["cpu_seconds"] - before) / (time.monotonic() - start)
        assert 0.05 < share < 0.4
        vm.process.send_signal(signal.SIGTERM)
        assert await vm.exit_code() == 0
