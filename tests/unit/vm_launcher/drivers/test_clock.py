"""The rate of the host's time-stamp counter, on the host that runs the tests."""

import itertools
import mmap

import pytest

from tests.unit.vm_launcher.drivers.test_command import SPEC
from vm_launcher.drivers.base import Handle, SavedState, SavedStateError
from vm_launcher.drivers.qemu import QemuDriver, clock
from vm_launcher.drivers.qemu.command import fingerprint


def test_two_measurements_agree() -> None:
    one, two = clock.host_tsc_khz(), clock.host_tsc_khz()
    assert one is not None
    assert two is not None
    assert 500_000 < one < 6_000_000
    assert one == pytest.approx(two, rel=0.001)


def test_a_processor_without_the_counter_gets_another_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert clock.host_tsc_khz() is None
    assert clock.kernel_parameters(None) == "tsc=unstable clocksource=hpet"


def test_a_host_that_allows_no_code_at_run_time_gets_another_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert clock.host_tsc_khz() is None


@pytest.mark.parametrize("step", [0, 1000, 1 << 40])
def test_a_counter_that_is_no_clock_is_not_used(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    counts = itertools.count(0, step or 1)
    monkeypatch.setattr(clock, "_counter", lambda: lambda: next(counts) if step else 7)
    assert clock.host_tsc_khz() is None


def test_a_saved_guest_goes_on_only_at_its_rate() -> None:
    assert clock.same_rate(2_400_000, 2_400_100)
    assert not clock.same_rate(2_400_000, 2_500_000)
    assert not clock.same_rate(2_400_000, None)
    assert clock.same_rate(None, 2_400_000), "it has another clock"


async def test_a_vm_saved_at_another_rate_is_not_restored() -> None:
    driver = QemuDriver()
    version = (await driver.fingerprint()).version
    saved = SavedState(
        file="memory.state", fingerprint=fingerprint(SPEC, version), bytes=1, tsc_khz=100_000
    )
    with pytest.raises(SavedStateError, match="another rate"):
        await driver.restore(Handle(driver="qemu", spec=SPEC, saved=saved), SPEC)
