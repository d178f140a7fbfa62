"""Whether the client still lives. Without it a task must end: nobody would count it or stop it."""

import os
from pathlib import Path

HEARTBEAT_TIMEOUT = 30.0
"""Seconds; counts only where the client does not tell its pid, for it may be held up for long."""


class ClientWatch:
    """Looks for the process `pid`; where that is 0, it listens for heartbeats."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._heard = now
        self._started = _start_ticks(pid) if pid else None

    def heard(self, now: float) -> None:
        self._heard = now

    def gone(self, now: float) -> str | None:
        """Why the client must be gone; None while it may live."""
        if self._pid:
            return None if self._lives() else f"the BOINC client (pid {self._pid}) has ended"
        if now - self._heard > HEARTBEAT_TIMEOUT:
            return f"no heartbeat of the BOINC client for {HEARTBEAT_TIMEOUT:.0f} s"
        return None

    def _lives(self) -> bool:
        """A zombie does not; nor does a later process that was given its pid."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's, so it is there
        return self._started is None or _start_ticks(self._pid) == self._started


def _start_ticks(pid: int) -> int | None:
    """When it started (proc(5), stat, field 22); None where /proc does not tell or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
