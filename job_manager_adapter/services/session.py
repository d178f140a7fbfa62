"""One attach of a pilot, whatever carries it."""

import asyncio
from typing import TYPE_CHECKING

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame, Policy
from job_manager_adapter.services.errors import SessionClosedError

if TYPE_CHECKING:
    from job_manager_adapter.services.conversation import Conversation

_WHY = {
    ErrorCode.SESSION_SUPERSEDED: "a newer session of this pilot took over",
    ErrorCode.PILOT_RETIRED: "this pilot was retired",
    ErrorCode.HOST_BANNED: "the host of this pilot is banned",
}


class PilotSession:
    """Made by `Pilots.attach`. Use from one event loop only."""

    __slots__ = (
        *("pilot", "number", "carrier", "closed", "reason", "acknowledges", "greet", "policy"),
        *("_conversation", "_heard", "_waiter", "_accepted"),
    )

    def __init__(self, conversation: "Conversation", pilot: str, number: int, carrier: str) -> None:
        self.pilot = pilot
        self.number = number
        self.carrier = carrier
        self.closed = False
        """The session is over; `reason` says why."""
        self.reason: ErrorCode | None = None
        """session_superseded, pilot_retired or host_banned; None after a plain `detach`."""
        self.acknowledges = 0
        self.greet = True
        """The pilot has not yet been answered."""
        self.policy: Policy | None = None
        """What it was told."""
        self._conversation = conversation
        self._heard = False
        self._waiter: asyncio.Future[bool] | None = None
        self._accepted = 0

    def receive(self, frame: PilotFrame) -> None:
        """Takes a frame; never waits. What it causes comes out of `next`.

        Raises SessionClosedError if the session is over or the frame names another one.
        """
        if self.closed:
            raise self._error()
        if frame.session is not None and frame.session != self.number:
            raise SessionClosedError(
                f"the frame names session {frame.session}, this is {self.number}",
                remedy="attach again",
            )
        self._conversation.heard(self, frame)
        self._heard = True
        self.wake()

    async def next(self, timeout: float | None = None) -> ManagerFrame | None:
        """As `next_text`, parsed."""
        text = await self.next_text(timeout)
        return None if text is None else ManagerFrame.model_validate_json(text)

    async def next_text(self, timeout: float | None = None) -> str | None:
        """The next frame for the pilot, all that is due in one; None after `timeout` seconds.

        Only one call at a time: a newer call makes the older return None (long-poll).
        Safe to cancel: nothing is taken out before it is returned.
        Raises SessionClosedError when the session is over and everything was said.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        self._stop_waiting(False)
        while True:
            if (text := self.ready()) is not None:
                return text
            waiter = self._waiter = loop.create_future()
            timer = None if until is None else loop.call_at(until, _give_up, waiter)
            try:
                if not await waiter:
                    return None
            finally:
                if timer is not None:
                    timer.cancel()

    def ready(self) -> str | None:
        """The next frame if one is due already. Raises as `next_text`."""
        if self._due():
            return self._conversation.frame(self)
        if self.closed:
            raise self._error()
        return None

    def _due(self) -> bool:
        return self._heard and (self.greet or self._conversation.due(self))

    def newly_accepted(self) -> int:
        """How many reports were accepted since the last call."""
        count, self._accepted = self._accepted, 0
        return count

    def accepted(self) -> None:
        """A report was."""
        self._accepted += 1

    def wake(self) -> None:
        """Something may be due."""
        if self._waiter is not None and (self.closed or self._due()):
            self._stop_waiting(True)

    def _stop_waiting(self, go_on: bool) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(go_on)

    def close(self, reason: ErrorCode | None) -> None:
        """What is due can still be fetched by `next`."""
        if not self.closed:
            self.reason = reason
            self.closed = True
            self._stop_waiting(True)

    def detach(self) -> None:
        """The carrier is gone. Leases stay; the pilot may attach again."""
        self._conversation.detached(self)
        self.close(None)

    def _error(self) -> SessionClosedError:
        code = self.reason or ErrorCode.SESSION_SUPERSEDED
        return SessionClosedError(_WHY.get(code, "the session is over"), code=code)


def _give_up(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)
