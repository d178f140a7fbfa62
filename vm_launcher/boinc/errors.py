"""What can be wrong with what the BOINC client gives a task."""

from copilot_agent.protocol.errors import CopilotError, ErrorCode


class BoincError(CopilotError):
    code = ErrorCode.INVALID_REQUEST


class InitDataError(BoincError):
    """init_data.xml is missing or malformed."""


class SharedMemoryError(BoincError):
    """The channels to the client cannot be opened."""

    code = ErrorCode.UNAVAILABLE


class SlotError(BoincError):
    """A file of the slot is not as it should be."""


class SlotLockedError(SlotError):
    """Another process works in this slot."""

    code = ErrorCode.CONFLICT


class TrickleError(BoincError):
    """A trickle-up that cannot be queued."""

    code = ErrorCode.TOO_LARGE
