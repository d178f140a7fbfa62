"""Which accelerator is chosen, and what is said about it."""

import sys
import time
from pathlib import Path

import pytest

from vm_launcher.drivers import kvm_probe
from vm_launcher.drivers.accelerator import Choice, Probe, choose, probe_kvm

GOOD = Probe(True, "KVM runs 900 million instructions a second")
BAD = Probe(False, "no right to use /dev/kvm", "sudo adduser $USER kvm, then log in anew")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("wanted", "emulation", "probe", "expected"),
    [
        ("auto", True, GOOD, ("kvm", "tcg")),
        ("auto", False, GOOD, ("kvm",)),
        ("auto", True, BAD, ("tcg",)),
        ("auto", False, BAD, ()),
        ("kvm", True, BAD, ()),
        ("tcg", False, GOOD, ("tcg",)),
    ],
)
def test_choice(wanted: str, emulation: bool, probe: Probe, expected: tuple[str, ...]) -> None:
    assert choose(wanted, emulation, probe).accelerators == expected


def test_a_refusal_says_why_and_what_to_do() -> None:
    choice = choose("auto", False, BAD)
    assert choice == Choice((), BAD.reason, f"{BAD.remedy}; or set allow_emulation = true (slow)")


def test_no_device(tmp_path: Path) -> None:
    probe = probe_kvm(tmp_path / "kvm")
    assert not probe.usable
    assert "not there" in probe.reason
    assert probe.remedy


@pytest.mark.parametrize(
    ("speed", "usable"), [(1.3e6, False), (49e6, False), (60e6, True), (1e9, True)]
)
def test_speed_decides(tmp_path: Path, speed: float, usable: bool) -> None:
    device = tmp_path / "kvm"
    device.touch()
    code = f"print('{{\"instructions_per_second\": {speed}}}')"
    assert probe_kvm(device, python(code)).usable is usable


def test_a_hanging_kvm_takes_two_seconds_at_most(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    start = time.monotonic()
    probe = probe_kvm(device, python("import time; time.sleep(60)"))
    assert not probe.usable
    assert "did not end" in probe.reason
    assert time.monotonic() - start < 6


@pytest.mark.parametrize("code", ["", "print('[]')", "import os; os.abort()", "print('{}')"])
def test_a_broken_probe_is_no_kvm(tmp_path: Path, code: str) -> None:
    device = tmp_path / "kvm"
    device.touch()
    assert not probe_kvm(device, python(code)).usable


def test_a_device_that_is_no_kvm(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    probe = probe_kvm(device)
    assert not probe.usable
    assert "code does not run" in probe.reason


def test_the_loop_is_what_its_comment_says() -> None:
    assert kvm_probe.loop_code(1) == bytes.fromhex("66b901000000 6649 75fc f4")
