"""Several carriers in the order in which they are wanted: the first that works is used."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.transports.base import NotOfferedError, Transport, TransportError

log = logging.getLogger(__name__)

AGAIN_SECONDS = 600.0
"""How long a worse carrier is used before the better ones are tried again."""
TRIES = 2


@dataclass(frozen=True)
class Rung:
    name: str
    transport: Transport


class Ladder:
    """A carrier that is not offered is passed over at once, an unreachable one after two tries.

    Where a connection is made but the manager is not heard on it, that counts as unreachable.
    """

    def __init__(self, rungs: Sequence[Rung], clock: Callable[[], float] = time.monotonic) -> None:
        self._rungs = tuple(rungs)
        self._clock = clock
        self._at = 0
        self._look_at: float | None = None
        """When better carriers are tried again; None while the best one is used."""
        self._failures = 0
        self._token = ""
        self._connected: Transport | None = None
        self._silent = False
        """A connection was made, and nothing has been heard on it."""

    @property
    def carrier(self) -> str:
        return self._rungs[self._at].name

    async def connect(self, token: str) -> None:
        """See `Transport`. On from where it was, or from the top once that is due."""
        self._token = token
        if self._silent:
            self._silent = False
            self._leave("the manager was not heard")
        if self._look_at is not None and self._clock() >= self._look_at:
            self._at, self._look_at = 0, None
        while True:
            try:
                return await self._try(self._rungs[self._at].transport)
            except TransportError as error:
                if error.trouble is not TransportTrouble.UNREACHABLE:
                    raise
                if not self._leave(error.message, isinstance(error, NotOfferedError)):
                    raise

    async def _try(self, transport: Transport) -> None:
        self._connected = None
        await transport.connect(self._token)
        self._connected, self._silent = transport, True

    def _leave(self, why: str, at_once: bool = False) -> bool:
        """After a failure: whether there is another carrier to try now."""
        self._failures += 1
        if not at_once and self._failures < TRIES:
            return False
        self._failures = 0
        log.warning("no way to the manager over %s: %s", self.carrier, why)
        if self._at + 1 == len(self._rungs):
            self._at, self._look_at = 0, None  # nothing works: all are worth another try
            return False
        self._at += 1
        if self._look_at is None:
            self._look_at = self._clock() + AGAIN_SECONDS
        return True

    async def send(self, frame: PilotFrame) -> None:
        await self._current().send(frame)

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        try:
            async for frame in self._current().frames():
                self._silent, self._failures = False, 0
                await self._look()
                yield frame
        except TransportError as error:
            if error.trouble is not TransportTrouble.UNREACHABLE:
                self._silent = False  # that was the manager's word
            raise

    async def _look(self) -> None:
        """Raises TransportError if a better carrier is there again."""
        if self._look_at is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + AGAIN_SECONDS
        for number, rung in enumerate(self._rungs[: self._at]):
            try:
                await rung.transport.connect(self._token)
            except TransportError:
                continue
            await rung.transport.close()
            await self.close()
            self._at = number
            if number == 0:
                self._look_at = None
            message = f"better carriers pass again: {rung.name}"
            raise TransportError(TransportTrouble.UNREACHABLE, message)

    def use_token(self, token: str) -> None:
        self._token = token
        if self._connected is not None:
            self._connected.use_token(token)

    async def close(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected.close()

    def _current(self) -> Transport:
        if self._connected is None:
            raise TransportError(TransportTrouble.UNREACHABLE, "not connected")
        return self._connected
