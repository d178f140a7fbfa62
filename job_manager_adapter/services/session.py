"""One attach of a pilot, whatever carries it."""

import asyncio

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame


class PilotSession:
    """Made by `Pilots.attach`. Use from one event loop only."""

    pilot: str
    number: int
    closed: asyncio.Event
    """Set when the session is over; `reason` says why."""
    reason: ErrorCode | None
    """session_superseded, pilot_retired or host_banned; None after a plain `detach`."""

    def receive(self, frame: PilotFrame) -> None:
        """Takes a frame; never waits. What it causes comes out of `next`.

        Raises SessionClosedError if the session is over or the frame names another one.
        """
        raise NotImplementedError

    async def next(self, timeout: float | None = None) -> ManagerFrame | None:
        """The next frame for the pilot, all that is due in one; None after `timeout` seconds.

        Only one call at a time: a newer call makes the older return None (long-poll).
        Safe to cancel: nothing is taken out before it is returned.
        Raises SessionClosedError when the session is over and everything was said.
        """
        raise NotImplementedError

    def detach(self) -> None:
        """The carrier is gone. Leases stay; the pilot may attach again."""
        raise NotImplementedError
