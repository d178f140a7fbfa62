"""The guest's end of `net`: its only way out, connections that the launcher makes for it."""

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from copilot_agent.host_channel.errors import ConnectionBrokenError, UnreachableError
from copilot_agent.host_channel.link import Link
from copilot_agent.host_channel.ports import NET_PORT, Port
from copilot_agent.protocol.channel import FILLER, MAX_STREAMS, GuestHandshake, mark

if TYPE_CHECKING:
    from copilot_agent.host_channel.streams import Stream, Streams

_REPEAT_SECONDS = 0.5
_PING_SECONDS = 15.0
_SILENCE_SECONDS = 45.0
_CONNECTION_SECONDS = 10.0
_ANSWER_SECONDS = 40.0
_ATTEMPTS = 3  # the connection to the launcher may begin anew while an answer is due

log = logging.getLogger(__name__)


class NetChannel:
    """Dials through the launcher; call `start` first.

    `epoch` is the one of the hello, see protocol.guest. Without `port` it opens `net`'s own.
    """

    def __init__(self, epoch: int, port: Port | None = None) -> None:
        self._epoch = epoch
        self._port = port
        self._streams: Streams | None = None
        self._handshake: GuestHandshake | None = None
        self._mark = b""
        self._ready = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_STREAMS - 6)  # the host may count closed ones longer
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0

    async def start(self) -> None:
        """Raises PortNotFoundError; does not wait for the launcher."""
        self._loop = asyncio.get_running_loop()
        self._link = Link(
            self._port or Port.open(NET_PORT),
            on_data=self._received,
            on_presence=self._presence,
            on_room=self._room,
        )
        self._link.start()

    async def dial(self, host: str, port: int) -> socket.socket:
        """A connected non-blocking socket to host:port, which the launcher resolves.

        It behaves like one of TCP: half-close passes through, a lost connection reads as
        ConnectionResetError. Raises EgressRefusedError and UnreachableError.
        """
        for _ in range(_ATTEMPTS):
            await self._wait_until_ready(host, port)
            try:
                return await self._dial_once(host, port)
            except UnreachableError as error:
                if error.reason != "connection_lost":
                    raise
        raise UnreachableError("connection_lost", host, port)

    async def reset(self, epoch: int) -> None:
        """Drops every stream and starts anew, after a pause or a restore."""
        self._epoch = epoch
        if self._link.present:
            self._begin(FILLER)

    async def close(self) -> None:
        self._stop()
        self._link.close()

    async def _wait_until_ready(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(_CONNECTION_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise UnreachableError("no_launcher", host, port) from None

    async def _dial_once(self, host: str, port: int) -> socket.socket:
        await self._slots.acquire()
        streams, stream = self._new_stream(host, port)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await stream.answer
        except BaseException as error:
            streams.abandon(stream)
            if isinstance(error, TimeoutError):
                raise UnreachableError("no_answer", host, port) from None
            raise

    def _new_stream(self, host: str, port: int) -> "tuple[Streams, Stream]":
        try:
            if self._streams is None:
                raise UnreachableError("connection_lost", host, port)
            return self._streams, self._streams.open(host, port, self._slots.release)
        except BaseException:
            self._slots.release()
            raise

    # The life of the connection: absent → (mark sent) → ready → …

    def _presence(self, present: bool) -> None:
        if present:
            self._begin()
        else:
            log.info("the launcher has left the net channel")
            self._stop()

    def _begin(self, filler: bytes = b"") -> None:
        self._stop()
        self._mark = mark(self._epoch, os.urandom(16))
        self._handshake = GuestHandshake(self._mark)
        self._link.write(filler + self._mark)
        self._timer = self._loop.call_later(_REPEAT_SECONDS, self._repeat)

    def _repeat(self) -> None:
        if not self._link.full:
            self._link.write(FILLER + self._mark)
        self._timer = self._loop.call_later(_REPEAT_SECONDS, self._repeat)

    def _stop(self) -> None:
        self._ready.clear()
        self._handshake = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._link.discard()
        streams, self._streams = self._streams, None
        if streams is not None:
            streams.fail()

    def _received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._handshake is not None:
            data = self._shake_hands(self._handshake, data)
        if not data or self._streams is None:
            return
        try:
            self._streams.receive(data)
        except ConnectionBrokenError as error:
            log.warning("the net channel starts anew: %s", error)
            self._begin(FILLER)

    def _shake_hands(self, handshake: GuestHandshake, data: bytes) -> bytes:
        rest = handshake.feed(data)
        if handshake.answered and self._streams is None:
            self._connect()
        if rest:
            self._handshake = None
            self._ready.set()
        return rest

    def _connect(self) -> None:
        from copilot_agent.host_channel.streams import Streams  # h2 costs time at boot

        self._streams = Streams(self._link.write, lambda: self._link.full)
        self._streams.start()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_PING_SECONDS, self._keep_alive)

    def _keep_alive(self) -> None:
        if self._loop.time() - self._heard_at > _SILENCE_SECONDS:
            log.warning("the launcher has been silent on the net channel; starting anew")
            self._begin(FILLER)
            return
        if self._streams is not None and self._handshake is None:
            self._streams.ping()
        self._timer = self._loop.call_later(_PING_SECONDS, self._keep_alive)

    def _room(self) -> None:
        if self._streams is not None:
            self._streams.resume()
