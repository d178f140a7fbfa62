"""`vm-launcher run` and real signals: the program is real, only the hypervisor is not."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.vm_launcher.images.conftest import SmallImage
from vm_launcher.images.signing import public_pem

# There is no hypervisor, the guest hears nothing and may take a minute to say good-bye, and the
# image is loaded when the file `go` appears.
PROGRAM = """
import sys, time
from functools import partial
from datetime import UTC, datetime
from pathlib import Path
from vm_launcher import assembly, standalone
from vm_launcher.cli.main import main
from vm_launcher.drivers.fake import Behaviour, FakeDriver
home, load_image = Path(sys.argv[1]), assembly.load_image
def load(*args, **kwargs):
    (home / "loading").touch()
    while not (home / "go").exists():
        time.sleep(0.01)
    return load_image(*args, **{**kwargs, "now": datetime(2026, 6, 1, tzinfo=UTC)})
assembly.load_driver = lambda _: FakeDriver(Behaviour(deaf=True))
assembly.load_image = load
assembly.Rules = partial(assembly.Rules, stop_seconds=60.0)
sys.exit(main(sys.argv[2:]))
"""


class Program:
    def __init__(self, home: Path) -> None:
        image = SmallImage(home / "image").make()
        (home / "key").write_bytes(public_pem(image.key.public_key()))
        (home / "secret").write_text("s" * 43)
        self.home = home
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, str(home), "run", "--state", str(home / "state")),
                *("--manager", "http://127.0.0.1:9", "--enrolment-file", str(home / "secret")),
                *("--image", str(image.directory), "--image-key", str(home / "key")),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def loads(self) -> None:
        self.until((self.home / "loading").exists)

    def idles(self) -> None:
        (self.home / "go").touch()
        status = self.home / "state" / "status.json"
        self.until(lambda: status.exists() and "idle" in status.read_text())

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=30)
        assert "Traceback" not in said
        return self.process.returncode, said


@pytest.fixture
def program() -> Iterator[Program]:
    home = Path(tempfile.mkdtemp(prefix="sig-"))
    running = Program(home)
    yield running
    running.process.kill()
    running.process.communicate()
    shutil.rmtree(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_vm_is_started_ends_at_once(
    program: Program, number: signal.Signals
) -> None:
    program.loads()
    program.process.send_signal(number)
    (program.home / "go").touch()
    code, said = program.end()
    assert code == 0
    assert "before the VM was started" in said
    left = {entry.name for entry in (program.home / "state").iterdir()}
    assert not left & {"vm", "handle.json"}


def test_a_second_signal_does_not_wait_for_a_deaf_guest(program: Program) -> None:
    program.idles()
    program.process.send_signal(signal.SIGINT)
    status = program.home / "state" / "status.json"
    program.until(lambda: json.loads(status.read_text())["state"] == "stopping")
    program.process.send_signal(signal.SIGINT)
    code, said = program.end()
    assert code == 0, said
