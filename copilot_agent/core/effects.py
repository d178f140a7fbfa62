"""What a pilot wants done. The shell runs effects in their order and feeds results back."""

from dataclasses import dataclass
from typing import Literal

from copilot_agent.core.events import Key
from copilot_agent.protocol.frames import Links, Offer, PilotFrame, Report
from copilot_agent.protocol.guest import GuestMessage
from copilot_agent.protocol.job import FailureClass
from copilot_agent.protocol.receipt import Receipt


@dataclass(frozen=True)
class SetTimer:
    """Send `Tick` at this monotonic time; replaces the one before. None: no timer."""

    at: float | None


@dataclass(frozen=True)
class Connect:
    """Get a token where there is none (`renew`: a fresh one in any case), then connect.

    Ends in `Connected` or `ConnectionLost`.
    """

    renew: bool = False


@dataclass(frozen=True)
class Disconnect:
    """Close the connection, or give up connecting; nothing more is heard from it."""


@dataclass(frozen=True)
class RenewToken:
    """While the connection goes on."""


@dataclass(frozen=True)
class SendFrame:
    frame: PilotFrame


@dataclass(frozen=True)
class Measure:
    """Answered by `Measured` with all running payloads."""


@dataclass(frozen=True)
class KeepUnfinished:
    """Write this list before anything that follows is done."""

    keys: tuple[Key, ...]


@dataclass(frozen=True)
class StageIn:
    offer: Offer


@dataclass(frozen=True)
class StartPayload:
    offer: Offer


@dataclass(frozen=True)
class Kill:
    key: Key
    failure_class: FailureClass
    message: str
    grace_seconds: float = 5.0


@dataclass(frozen=True)
class StageOut:
    """`offer.outputs` are those to move."""

    offer: Offer


@dataclass(frozen=True)
class StopStaging:
    key: Key


@dataclass(frozen=True)
class CleanUp:
    """Remove the attempt's directory."""

    key: Key


@dataclass(frozen=True)
class UseLinks:
    links: Links


@dataclass(frozen=True)
class SpoolReport:
    """Answered by `ReportSpooled`."""

    report: Report


@dataclass(frozen=True)
class DropReport:
    key: Key


@dataclass(frozen=True)
class KeepReceipts:
    """Answered by `ReceiptsKept`."""

    receipts: tuple[Receipt, ...]


@dataclass(frozen=True)
class TellLauncher:
    message: GuestMessage


@dataclass(frozen=True)
class Note:
    """A line for the log."""

    level: Literal["info", "warning", "error"]
    message: str
    key: Key | None = None


@dataclass(frozen=True)
class Finish:
    """The last effect. 0: asked to leave; 3: the manager refuses this pilot."""

    exit_code: int


LinkEffect = Connect | Disconnect | RenewToken | SendFrame
WorkEffect = StageIn | StartPayload | Kill | StageOut | StopStaging | CleanUp | UseLinks
SpoolEffect = SpoolReport | DropReport | KeepUnfinished
HostEffect = TellLauncher | KeepReceipts
OwnEffect = SetTimer | Measure | Finish | Note
Effect = LinkEffect | WorkEffect | SpoolEffect | HostEffect | OwnEffect
