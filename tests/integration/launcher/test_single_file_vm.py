"""A real VM under the single file: what it costs, and that neither outlives the other."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from tests.harness import scripted_vm
from tests.harness.programs import alive, eventually
from tests.harness.vm import left_behind
from vm_launcher.drivers.base import Handle
from vm_launcher.state import Status

pytestmark = pytest.mark.vm

BOOT_SECONDS = 90.0
MOST_MIB = 60


class Launched:
    """`vm-launcher run` in a slot, which is its current directory."""

    def __init__(self, program: Path, slot: Path, image: scripted_vm.ScriptedImage) -> None:
        self._slot = slot
        self.began = time.monotonic()
        self._words = (
            *(program, "run", "--manager", "http://127.0.0.1:9", "--state", "state"),
            *("--image", image.directory, "--image-key", image.key_file),
            *("--enrolment-file", "secret", "--disk", "256"),
        )

    async def __aenter__(self) -> "Launched":
        self.process = await asyncio.create_subprocess_exec(*self._words, cwd=self._slot)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    @property
    def status(self) -> Status:
        try:
            found = Status.model_validate_json((self._slot / "state" / "status.json").read_bytes())
        except FileNotFoundError:
            return Status()
        return found if found.pid == self.process.pid else Status()

    async def idle(self) -> int:
        """Waits for the guest; returns QEMU's pid."""
        await eventually(lambda: self.status.guest_state == "idle", BOOT_SECONDS, "an idle guest")
        handle = Handle.model_validate_json((self._slot / "state" / "handle.json").read_bytes())
        assert handle.process is not None
        return handle.process.pid


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def mapped(pid: int) -> set[str]:
    """Files from which it runs."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {parts[5] for line in lines if len(parts := line.split(maxsplit=5)) == 6}


async def test_a_vm(launcher_file: Path, tmp_path: Path) -> None:
    image = scripted_vm.scripted_image(tmp_path / "image")
    slot = tmp_path / "slot"
    slot.mkdir()
    (slot / "secret").write_text("s" * 43 + "\n")
    async with Launched(launcher_file, slot, image) as first:
        qemu = await first.idle()
        spent = time.monotonic() - first.began - (first.status.ready_seconds or 0)
        size = resident_mib(first.process.pid)
        sys.stdout.write(f"\n{size:.1f} MiB resident, {spent:.2f} s besides QEMU's own\n")
        assert size <= MOST_MIB
        foreign = {path for path in mapped(first.process.pid) if not path.startswith(str(slot))}
        assert not [path for path in foreign if "python" in path]
        assert not any(".vm-launcher-" in path for path in mapped(qemu))
        first.process.kill()
        await first.process.wait()
        await eventually(lambda: not alive(qemu), 2, "QEMU's end")

    async with Launched(launcher_file, slot, image) as second:
        await second.idle()
        assert len(list(slot.glob(".vm-launcher-*"))) == 1, "the killed one's files are gone"
        second.process.terminate()
        assert await asyncio.wait_for(second.process.wait(), 20) == 0
    assert {path.name for path in slot.iterdir()} == {"secret", "state"}
    assert left_behind(slot / "state") <= {"console.log"}
