"""The raw wait status, which the original reports as a job's exit code."""

from dataclasses import dataclass

from copilot_agent.protocol.copilot1.errors import refused

_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: with an exit code, by a signal, or both.

    Both means that a shell ended in an ordinary way and says with 128 + signal how its own child
    died, which is how the original's jobs die.
    """

    exit_code: int | None
    signal: int | None = None

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0


def is_wait_status(status: int) -> bool:
    """Whether an ended process can have it: an exit code, or a signal and perhaps a core dump."""
    code, signal = status >> 8, status & 0x7F
    return 0 <= code <= 0xFF and signal <= _LAST_SIGNAL and not (code and status & 0xFF)


def ending_of(status: int) -> Ending:
    """Raises StanzaError where no ended process has such a status."""
    if not is_wait_status(status):
        raise refused("exitCode", "must be a wait status, such as 768 for exit code 3")
    if signal := status & 0x7F:
        return Ending(None, signal)
    code = status >> 8
    return Ending(code, code - 128 if 128 < code <= 128 + _LAST_SIGNAL else None)


def status_of(ending: Ending) -> int:
    """Without word of a core dump. Raises StanzaError for an ending that no process has."""
    status = ending.signal if ending.exit_code is None else ending.exit_code << 8
    if status is None or not is_wait_status(status):
        raise refused("exitCode", "must be that of an ended process")
    return status
