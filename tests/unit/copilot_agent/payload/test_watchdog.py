import signal
from typing import Any

import pytest

from copilot_agent.payload.enclosure import MIB, Measured
from copilot_agent.payload.watchdog import (
    MAX_FILES,
    Disk,
    Exit,
    Limits,
    Stop,
    exceeded,
    next_look,
    verdict,
)
from copilot_agent.protocol.job import FailureClass

LIMITS = Limits(cores=1, memory_mib=256, disk_mib=100, processes=10, run_seconds=60)
IDLE, EMPTY = Measured(), Disk()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"run_seconds": 59.9}, None),
        ({"run_seconds": 60.0}, "ran longer than 60 seconds; raise limits.run_seconds"),
        ({"measured": Measured(memory_bytes=256 * MIB)}, None),
        (
            {"measured": Measured(memory_bytes=256 * MIB + 1)},
            "used more than 256 MiB of memory; raise requirements.memory_mib",
        ),
        (
            {"measured": Measured(memory_refused=True)},
            "used more than 256 MiB of memory; raise requirements.memory_mib",
        ),
        ({"measured": Measured(processes=10)}, None),
        (
            {"measured": Measured(processes=11)},
            "ran more than 10 processes and threads at once; raise limits.processes",
        ),
        (
            {"measured": Measured(process_refused=True)},
            "ran more than 10 processes and threads at once; raise limits.processes",
        ),
        ({"disk": Disk(bytes=100 * MIB - 1, files=MAX_FILES)}, None),
        (
            {"disk": Disk(bytes=100 * MIB)},
            "filled 100 MiB of disk; raise requirements.disk_mib",
        ),
        (
            {"disk": Disk(files=MAX_FILES + 1)},
            "made more than 100000 files; pack them into archives",
        ),
        ({"disk": Disk(too_deep=True)}, "nested directories deeper than 64"),
    ],
)
def test_limits(changes: dict[str, Any], message: str | None) -> None:
    seen: dict[str, Any] = {"run_seconds": 1.0, "measured": IDLE, "disk": EMPTY}
    stop = exceeded(LIMITS, **seen | changes)
    if message is None:
        assert stop is None
    else:
        assert stop == Stop(failure_class=FailureClass.PAYLOAD_LIMIT, message=message)


@pytest.mark.parametrize(
    ("end", "changes", "failure_class", "words"),
    [
        (Exit(exit_code=3), {}, FailureClass.PAYLOAD, "exited with code 3"),
        (Exit(signal=11), {}, FailureClass.PAYLOAD, "signal 11 (SIGSEGV)"),
        (Exit(signal=40), {}, FailureClass.PAYLOAD, "signal 40 (real-time)"),
        (
            Exit(signal=signal.SIGXFSZ),
            {},
            FailureClass.PAYLOAD_LIMIT,
            "a file larger than 100 MiB",
        ),
        (
            Exit(signal=9),
            {"measured": Measured(memory_refused=True)},
            FailureClass.PAYLOAD_LIMIT,
            "256 MiB of memory",
        ),
        (
            Exit(exit_code=0),
            {"measured": Measured(process_refused=True)},
            FailureClass.PAYLOAD_LIMIT,
            "more than 10 processes",
        ),
        (
            Exit(exit_code=1),
            {"stopped": Stop(failure_class=FailureClass.CANCELLED, message="by its owner")},
            FailureClass.CANCELLED,
            "by its owner",
        ),
    ],
)
def test_bad_ends(
    end: Exit, changes: dict[str, Any], failure_class: FailureClass, words: str
) -> None:
    seen: dict[str, Any] = {"stopped": None, "measured": IDLE, "disk": EMPTY}
    why = verdict(LIMITS, end, **seen | changes)
    assert why is not None
    assert why.failure_class is failure_class
    assert words in why.message


def test_good_end() -> None:
    assert verdict(LIMITS, Exit(exit_code=0), stopped=None, measured=IDLE, disk=EMPTY) is None


@pytest.mark.parametrize("end", [Exit(exit_code=0), Exit(exit_code=1), Exit(signal=7)])
def test_what_ends_on_a_full_disk_is_the_hosts_fault(end: Exit) -> None:
    """Even where the payload did not notice: its files may be cut off."""
    found: dict[str, Any] = {"stopped": None, "measured": IDLE}
    why = verdict(LIMITS, end, **found, disk=EMPTY, free_bytes=MIB)
    assert why is not None
    assert why.failure_class is FailureClass.HOST
    assert "disk is full" in why.message
    own = verdict(LIMITS, end, **found, disk=Disk(bytes=100 * MIB), free_bytes=0)
    assert own is not None and own.failure_class is FailureClass.PAYLOAD_LIMIT


@pytest.mark.parametrize(
    ("before", "now", "pause"),
    [(0, 0, 1.0), (50, 40, 1.0), (0, 1, 1.0), (0, 50, 0.5), (0, 90, 0.0555), (0, 99, 0.05)],
)
def test_looks_come_sooner_as_the_disk_fills(before: int, now: int, pause: float) -> None:
    seconds = next_look(
        LIMITS,
        before=Disk(bytes=before * MIB),
        now=Disk(bytes=now * MIB),
        elapsed=1.0,
        slow=1.0,
        fast=0.05,
    )
    assert seconds == pytest.approx(pause, abs=0.001)
