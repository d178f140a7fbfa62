"""The states of a VM and the moves between them.

| state     | leaves for                  | on                             |
|-----------|-----------------------------|--------------------------------|
| absent    | booting, restoring          | begin                          |
| booting   | running, pausing, cleaning  | hello, pause, no hello in time |
| running   | pausing, stopping, cleaning | pause, save; stop; VM over     |
| pausing   | paused, cleaning            | VM paused; VM over             |
| paused    | resuming, saving, cleaning  | resume, stop; save; VM over    |
| resuming  | running, booting, cleaning  | VM resumed; VM over            |
| saving    | saved, paused, cleaning     | saved; failed; VM over         |
| restoring | paused, cleaning            | restored; failed               |
| stopping  | cleaning                    | guest retired, time is up      |
| cleaning  | waiting, gone               | VM destroyed                   |
| waiting   | booting, gone               | time to try again; stop        |

Saved and gone are final. "VM over": the guest stopped or the hypervisor failed, unasked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    ABSENT = "absent"
    BOOTING = "booting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    SAVING = "saving"
    RESTORING = "restoring"
    STOPPING = "stopping"
    CLEANING = "cleaning"
    WAITING = "waiting"
    SAVED = "saved"
    GONE = "gone"


S = State
MOVES: Mapping[State, frozenset[State]] = {
    S.ABSENT: frozenset({S.BOOTING, S.RESTORING}),
    S.BOOTING: frozenset({S.RUNNING, S.PAUSING, S.CLEANING}),
    S.RUNNING: frozenset({S.PAUSING, S.STOPPING, S.CLEANING}),
    S.PAUSING: frozenset({S.PAUSED, S.CLEANING}),
    S.PAUSED: frozenset({S.RESUMING, S.SAVING, S.CLEANING}),
    S.RESUMING: frozenset({S.RUNNING, S.BOOTING, S.CLEANING}),
    S.SAVING: frozenset({S.SAVED, S.PAUSED, S.CLEANING}),
    S.RESTORING: frozenset({S.PAUSED, S.CLEANING}),
    S.STOPPING: frozenset({S.CLEANING}),
    S.CLEANING: frozenset({S.WAITING, S.GONE}),
    S.WAITING: frozenset({S.BOOTING, S.GONE}),
    S.SAVED: frozenset(),
    S.GONE: frozenset(),
}


GUEST_IS_UP = frozenset({S.RUNNING, S.PAUSING, S.PAUSED, S.RESUMING, S.SAVING, S.STOPPING})
"""It may be heard; while booting it may be as soon as the hypervisor runs."""


class Wish(StrEnum):
    RUN = "run"
    PAUSE = "pause"
    SAVE = "save"
    STOP = "stop"


@dataclass(frozen=True)
class Rules:
    """Seconds and limits; accelerators in the order in which they are tried."""

    accelerators: tuple[str, ...] = ("tcg",)
    boot_seconds: Mapping[str, float] = field(default_factory=lambda: {"kvm": 60.0, "tcg": 120.0})
    pause_seconds: float = 1.0
    stop_seconds: float = 5.0
    restarts: int = 5
    """In a row, that is with less than `stable_seconds` between two failures."""
    stable_seconds: float = 600.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    chance: Callable[[], float] = lambda: 0.5
    """Random numbers in [0, 1): half of each wait is left to chance."""
