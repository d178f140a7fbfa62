"""Decides when a payload must be stopped, and how its end is to be called. No I/O."""

import signal
from dataclasses import dataclass

from copilot_agent.payload.enclosure import MIB, Bounds, Measured
from copilot_agent.protocol.job import FailureClass, JobSpec

MAX_FILES = 100_000
MAX_DEPTH = 64
"""A payload's directory may hold this many entries, nested so deep."""
FULL_BYTES = 4 * MIB
"""With less than this free, what a payload wrote may be cut off, whether it noticed or not."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Everything a payload is stopped for, from its job's requirements and limits."""

    cores: int
    memory_mib: int
    disk_mib: int
    processes: int
    run_seconds: float

    @classmethod
    def of(cls, spec: JobSpec) -> "Limits":
        needs, limits = spec.requirements, spec.limits
        return cls(
            cores=needs.cores,
            memory_mib=needs.memory_mib,
            disk_mib=needs.disk_mib,
            processes=limits.processes,
            run_seconds=limits.run_seconds,
        )

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            cores=self.cores, memory_bytes=self.memory_mib * MIB, processes=self.processes
        )


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A payload's directory as last scanned."""

    bytes: int = 0
    files: int = 0
    too_deep: bool = False


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a payload is or was stopped."""

    failure_class: FailureClass
    message: str


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How the payload's first process ended: an exit code or the number of a signal."""

    exit_code: int | None = None
    signal: int | None = None


def exceeded(limits: Limits, *, run_seconds: float, measured: Measured, disk: Disk) -> Stop | None:
    """The first limit that is broken, or None."""
    message = (
        _processes(limits, measured)
        or _memory(limits, measured)
        or _disk(limits, disk)
        or _run_time(limits, run_seconds)
    )
    return Stop(failure_class=FailureClass.PAYLOAD_LIMIT, message=message) if message else None


def next_look(
    limits: Limits, *, before: Disk, now: Disk, elapsed: float, slow: float, fast: float
) -> float:
    """Seconds until the next look: sooner where the disk would be full before a slow one.

    `elapsed` is the time between the two scans; the answer lies between `fast` and `slow`.
    """
    growth = (now.bytes - before.bytes) / max(elapsed, 0.001)
    if growth <= 0:
        return slow
    until_full = (limits.disk_mib * MIB - now.bytes) / growth
    return min(slow, max(fast, until_full / 2))


def _memory(limits: Limits, measured: Measured) -> str:
    over = max(measured.memory_bytes, measured.peak_memory_bytes) > limits.memory_mib * MIB
    if not (over or measured.memory_refused):
        return ""
    return f"used more than {limits.memory_mib} MiB of memory; raise requirements.memory_mib"


def _processes(limits: Limits, measured: Measured) -> str:
    if not (measured.process_refused or measured.processes > limits.processes):
        return ""
    return f"ran more than {limits.processes} processes and threads at once; raise limits.processes"


def _disk(limits: Limits, disk: Disk) -> str:
    if disk.bytes >= limits.disk_mib * MIB:
        return f"filled {limits.disk_mib} MiB of disk; raise requirements.disk_mib"
    if disk.files > MAX_FILES:
        return f"made more than {MAX_FILES} files; pack them into archives"
    if disk.too_deep:
        return f"nested directories deeper than {MAX_DEPTH}"
    return ""


def _run_time(limits: Limits, run_seconds: float) -> str:
    if run_seconds < limits.run_seconds:
        return ""
    return f"ran longer than {limits.run_seconds:g} seconds; raise limits.run_seconds"


def verdict(
    limits: Limits,
    end: Exit,
    *,
    stopped: Stop | None,
    measured: Measured,
    disk: Disk,
    free_bytes: int = FULL_BYTES,
) -> Stop | None:
    """What an end means: None for success. `free_bytes` are those of the disk it wrote to.

    A stop that was decided before the end is the reason for it. What the kernel refused shows
    only in its counters, so they are looked at whatever the exit code.
    """
    if stopped is not None:
        return stopped
    if (stop := exceeded(limits, run_seconds=0.0, measured=measured, disk=disk)) is not None:
        return stop
    if free_bytes < FULL_BYTES:  # a payload within its limits cannot have filled it
        message = f"this host's disk is full: {free_bytes // MIB} MiB are free"
        return Stop(failure_class=FailureClass.HOST, message=message)
    if end.signal == signal.SIGXFSZ:
        message = f"wrote a file larger than {limits.disk_mib} MiB; raise requirements.disk_mib"
        return Stop(failure_class=FailureClass.PAYLOAD_LIMIT, message=message)
    if end.signal is not None:
        message = f"the payload died by signal {end.signal} ({_signal_name(end.signal)})"
        return Stop(failure_class=FailureClass.PAYLOAD, message=message)
    if end.exit_code:
        message = f"the payload exited with code {end.exit_code}"
        return Stop(failure_class=FailureClass.PAYLOAD, message=message)
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"
