"""Exit codes; `vm-launcher --help` lists them."""

from enum import IntEnum

from copilot_agent.protocol.errors import CopilotError
from vm_launcher.assembly import UnusableHostError
from vm_launcher.core.events import End, Outcome
from vm_launcher.drivers.base import DriverError
from vm_launcher.images import ImageError
from vm_launcher.settings import SettingsError
from vm_launcher.state import StateLockedError


class Exit(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    IMAGE = 3
    HOST = 4
    LOCKED = 5
    PILOT = 6
    INTERRUPTED = 130


def exit_of(error: CopilotError | ImageError) -> Exit:
    match error:
        case ImageError():
            return Exit.IMAGE
        case SettingsError():
            return Exit.USAGE
        case StateLockedError():
            return Exit.LOCKED
        case DriverError() | UnusableHostError():
            return Exit.HOST
        case _:
            return Exit.ERROR


def exit_of_end(end: End) -> Exit:
    if end.outcome is not Outcome.FAILED:
        return Exit.OK
    return Exit.PILOT if end.by_pilot else Exit.HOST
