"""What happens to a BOINC task, and what is to be done about it."""

from dataclasses import dataclass

from vm_launcher.core.events import Ask, End, Say
from vm_launcher.core.states import State


@dataclass(frozen=True)
class View:
    """What the VM looks like now. Counts of jobs are the guest's, of this boot of the VM."""

    state: State
    guest_state: str = ""
    """As in the guest's `state`; empty before its first."""
    boot: int = 0
    jobs_succeeded: int = 0
    jobs_failed: int = 0
    receipts: int = 0
    """Of the whole task."""
    receipts_cpu_seconds: float = 0.0
    cpu_seconds: float | None = None
    """Of this VM's hypervisor processes, over saves; None before they were looked at."""


@dataclass(frozen=True)
class Suspend: ...


@dataclass(frozen=True)
class Resume: ...


@dataclass(frozen=True)
class Quit:
    """Leave, to be started again: the client quits or is gone, or the computer shuts down."""

    reason: str


@dataclass(frozen=True)
class Abort: ...


@dataclass(frozen=True)
class FinishSoon:
    """The project asks for it."""


@dataclass(frozen=True)
class Looked:
    """Comes every second; `wall` is Unix time."""

    view: View
    wall: float


@dataclass(frozen=True)
class VmEnded:
    end: End


TaskEvent = Suspend | Resume | Quit | Abort | FinishSoon | Looked | VmEnded


@dataclass(frozen=True)
class AskVm:
    ask: Ask
    reason: str = ""


@dataclass(frozen=True)
class HoldVm:
    """Stop its process, or let it run again, without a word to the guest."""

    held: bool
    sole: bool = False
    """The client keeps the volunteer's CPU limit in this way; ours would come on top of it."""


@dataclass(frozen=True)
class Trickle:
    """Tell the project that the manager has accepted `seconds` of CPU time since the last one.

    `total` is all that was told so far with this one; it makes a repetition recognisable.
    """

    seconds: float
    total: float


@dataclass(frozen=True)
class Leave:
    """End without a word: the client starts the task again, or has given it up."""

    status: int = 0
    saved: bool = False


@dataclass(frozen=True)
class Postpone:
    """Ask the client to start the task again after so many seconds."""

    seconds: float
    reason: str
    notice: bool = False
    """Show the reason to the volunteer as a notice."""


@dataclass(frozen=True)
class Finish:
    """The task is over; `status` 0 uploads the receipts, all others are BOINC's error codes."""

    status: int
    message: str = ""
    notice: bool = False


Ending = Leave | Postpone | Finish
TaskEffect = AskVm | HoldVm | Trickle | Say | Ending
