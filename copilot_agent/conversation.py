"""Runs the pilot's connection: token, carrier, frames in both directions."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from copilot_agent.core import events as ev
from copilot_agent.identity import Grant
from copilot_agent.protocol.frames import PilotFrame
from copilot_agent.transports.base import Transport, TransportError

log = logging.getLogger(__name__)

SEND_SECONDS = 30.0
CLOSE_SECONDS = 3.0


class Grants(Protocol):
    async def grant(self, renew: bool) -> Grant:
        """Raises TransportError."""


class Conversation:
    """Events are posted with the number of their connection, see `current`."""

    def __init__(
        self,
        transport: Transport,
        grants: Grants,
        post: Callable[[ev.Event, int], None],
        broken: Callable[[BaseException], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._grants = grants
        self._post = post
        self._broken = broken
        self._chance = chance
        self._number = 0
        self._connection: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._frames: asyncio.Queue[PilotFrame] = asyncio.Queue()

    def current(self, number: int | None) -> bool:
        """Whether an event is of the connection of now or of none, and not of one given up."""
        return number is None or number == self._number

    def connect(self, renew: bool) -> None:
        self._number += 1
        self._frames = asyncio.Queue()
        self._connection = self._spawn(self._run(self._number, renew))

    def disconnect(self) -> None:
        self._number += 1
        if self._connection is not None:
            self._connection.cancel()
            self._closing = self._spawn(self._close(self._closing, self._connection))
            self._connection = None

    def send(self, frame: PilotFrame) -> None:
        self._frames.put_nowait(frame)

    def renew(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = self._spawn(self._renew(self._number))

    async def close(self) -> None:
        """Lets what was said last get out first."""
        self.disconnect()
        if self._renewal is not None:
            self._renewal.cancel()
        if self._closing is not None:
            await self._closing

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What nobody expected ends the agent, loudly."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    async def _run(self, number: int, renew: bool) -> None:
        try:
            if self._closing is not None:
                await asyncio.shield(self._closing)
            grant = await self._granted(number, renew)
            await self._transport.connect(grant.token)
            self._post(ev.Connected(self._chance()), number)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(number))
                group.create_task(self._write(number))
        except* TransportError as errors:
            first = _first(errors)
            self._post(
                ev.ConnectionLost(first.trouble, first.message, self._chance(), first.wait_seconds),
                number,
            )

    async def _granted(self, number: int, renew: bool) -> Grant:
        grant = await self._grants.grant(renew)
        left = grant.valid_until - asyncio.get_running_loop().time()
        jitter = self._chance()
        event = ev.TokenObtained(grant.pilot, max(0.0, left), grant.policy, jitter)
        self._post(event, number)
        return grant

    async def _read(self, number: int) -> None:
        async for frame in self._transport.frames():
            self._post(ev.FrameReceived(frame), number)
        raise TransportError(ev.TransportTrouble.UNREACHABLE, "the connection was closed")

    async def _write(self, number: int) -> None:
        frames = self._frames
        while True:
            frame = await frames.get()
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._transport.send(frame)
            except TimeoutError:
                raise TransportError(
                    ev.TransportTrouble.UNREACHABLE, "the manager does not read"
                ) from None
            self._post(ev.FrameSent(frame.sequence), number)

    async def _renew(self, number: int) -> None:
        """Beside the connection; if it fails, the connection itself will show it later."""
        try:
            grant = await self._granted(number, renew=True)
        except TransportError as error:
            log.warning("cannot renew the token now: %s", error.message)
        else:
            self._transport.use_token(grant.token)

    async def _close(
        self, before: asyncio.Task[None] | None, connection: asyncio.Task[None]
    ) -> None:
        if before is not None:
            await before
        await asyncio.wait([connection])
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._transport.close()
        except (TimeoutError, TransportError) as error:
            log.debug("closing: %r", error)


def _first(errors: ExceptionGroup[TransportError]) -> TransportError:
    """The most telling one: any reason beats a plain loss."""
    found = [each for each in _leaves(errors)]
    told = [each for each in found if each.trouble is not ev.TransportTrouble.UNREACHABLE]
    return (told or found)[0]


def _leaves(errors: ExceptionGroup[TransportError]) -> list[TransportError]:
    leaves: list[TransportError] = []
    for each in errors.exceptions:
        leaves += _leaves(each) if isinstance(each, ExceptionGroup) else [each]
    return leaves
