"""What happens to a VM, and what is to be done about it."""

from dataclasses import dataclass
from enum import StrEnum

from copilot_agent.protocol.guest import GuestMessage
from copilot_agent.protocol.receipt import Receipt


class Ask(StrEnum):
    """What the owner of the host, or BOINC, can ask for."""

    PAUSE = "pause"
    RESUME = "resume"
    SAVE = "save"
    """Save to disk and end."""
    FINISH = "finish"
    """Let the pilot finish its jobs, then end."""
    UNDO_FINISH = "undo_finish"
    STOP = "stop"
    STOP_NOW = "stop_now"


@dataclass(frozen=True)
class Begin:
    saved: bool = False
    """A VM was saved earlier, `saved_seconds` ago; go on with it."""
    saved_seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    ask: Ask
    reason: str = ""


@dataclass(frozen=True)
class Booted:
    """The hypervisor runs; the guest is still to say hello."""


@dataclass(frozen=True)
class BootFailed:
    reason: str
    remedy: str = ""
    no_space: bool = False


@dataclass(frozen=True)
class Paused: ...


@dataclass(frozen=True)
class Resumed: ...


@dataclass(frozen=True)
class Saved: ...


@dataclass(frozen=True)
class SaveFailed:
    reason: str


@dataclass(frozen=True)
class Restored: ...


@dataclass(frozen=True)
class RestoreFailed:
    reason: str


@dataclass(frozen=True)
class Destroyed: ...


@dataclass(frozen=True)
class Heard:
    """A message of the guest of boot number `boot`."""

    boot: int
    message: GuestMessage


@dataclass(frozen=True)
class VmOver:
    """The guest stopped or the hypervisor failed, unasked."""

    boot: int
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed; sent at `Vm.deadline`."""


Event = (
    Begin
    | Asked
    | Booted
    | BootFailed
    | Paused
    | Resumed
    | Saved
    | SaveFailed
    | Restored
    | RestoreFailed
    | Destroyed
    | Heard
    | VmOver
    | Tick
)


@dataclass(frozen=True)
class BootVm:
    """Create and start; answered by `Booted` or `BootFailed`."""

    boot: int
    accelerator: str


@dataclass(frozen=True)
class PauseVm: ...


@dataclass(frozen=True)
class ResumeVm: ...


@dataclass(frozen=True)
class SaveVm: ...


@dataclass(frozen=True)
class RestoreVm:
    boot: int


@dataclass(frozen=True)
class DestroyVm:
    """End it and remove its files; answered by `Destroyed`, whatever happens."""


@dataclass(frozen=True)
class TellWelcome: ...


@dataclass(frozen=True)
class TellEnrolment:
    """Vouch for the pilot's key."""

    pilot_key: str


@dataclass(frozen=True)
class TellPauseSoon:
    seconds: float
    reason: str


@dataclass(frozen=True)
class TellResumed:
    paused_seconds: float


@dataclass(frozen=True)
class TellDrain:
    undo: bool = False


@dataclass(frozen=True)
class TellStop:
    seconds: float


@dataclass(frozen=True)
class KeepReceipts:
    """Write them down, then tell the guest that they are kept."""

    receipts: tuple[Receipt, ...]


@dataclass(frozen=True)
class RenewNet:
    """The guest's end of the `net` channel starts anew: drop the streams of other epochs."""

    epoch: int


@dataclass(frozen=True)
class Say:
    """For the log and the person who watches."""

    level: str
    text: str


class Outcome(StrEnum):
    STOPPED = "stopped"
    FINISHED = "finished"
    SAVED = "saved"
    FAILED = "failed"


@dataclass(frozen=True)
class End:
    """The launcher's work is done; nothing of the VM runs."""

    outcome: Outcome
    message: str = ""
    remedy: str = ""
    by_pilot: bool = False
    """The pilot gave up; the VM was fine."""
    no_space: bool = False
    """The disk has not enough room for the VM."""


Effect = (
    BootVm
    | PauseVm
    | ResumeVm
    | SaveVm
    | RestoreVm
    | DestroyVm
    | TellWelcome
    | TellEnrolment
    | TellPauseSoon
    | TellResumed
    | TellDrain
    | TellStop
    | KeepReceipts
    | RenewNet
    | Say
    | End
)
