"""The rate of the host's time-stamp counter, which is the guest's clock under TCG.

There QEMU answers `rdtsc` with the host's counter (less the time for which the VM was stopped), and
names no rate. The guest's kernel would measure it against an emulated timer, which goes wrong by
as much as a factor of two when the host is busy at that moment. So the launcher measures it.
"""

import ctypes
import mmap
import platform
import time
from collections.abc import Callable

_CODE = bytes.fromhex("0fae e8 0f31 48c1e220 4809d0 c3")  # lfence; rdtsc; rax |= rdx << 32; ret
_SECONDS = 0.05
_READINGS = 20
_PLAUSIBLE_KHZ = range(500_000, 6_000_000)
_TOLERANCE = 0.001

OTHER_CLOCK = "tsc=unstable clocksource=hpet"
"""For a host without that counter; slower to read, but of a known rate."""


def host_tsc_khz() -> int | None:
    """Takes 50 ms. None where the counter cannot be read or is no clock."""
    counter = _counter()
    if counter is None:
        return None
    start, first = _reading(counter)
    time.sleep(_SECONDS)
    end, last = _reading(counter)
    khz = round((last - first) * 1_000_000 / (end - start))
    return khz if khz in _PLAUSIBLE_KHZ else None


def kernel_parameters(tsc_khz: int | None) -> str:
    """What a guest under TCG must be told."""
    return OTHER_CLOCK if tsc_khz is None else f"tsc_early_khz={tsc_khz}"


def same_rate(saved: int | None, now: int | None) -> bool:
    """Whether a guest that counted on the rate `saved` has a right clock on this host."""
    if saved is None:
        return True  # it has another clock
    return now is not None and abs(now - saved) <= saved * _TOLERANCE


def _counter() -> Callable[[], int] | None:
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a hardened host allows no code made at run time
        return None
    code.write(_CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    call = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)

    def read(keep: object = code) -> int:  # noqa: ARG001 - the code lives as long as its caller
        return int(call())

    return read


def _reading(counter: Callable[[], int]) -> tuple[int, int]:
    """Nanoseconds and counter at one moment: the tightest of several, others were interrupted."""
    clock = time.CLOCK_MONOTONIC_RAW
    readings = []
    for _ in range(_READINGS):
        before = time.clock_gettime_ns(clock)
        count = counter()
        after = time.clock_gettime_ns(clock)
        readings.append((after - before, (before + after) // 2, count))
    _, moment, count = min(readings)
    return moment, count
