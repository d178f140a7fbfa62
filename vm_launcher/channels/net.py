"""The launcher's end of `net`: serves the guest's CONNECT requests as far as `egress` permits."""

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

from copilot_agent.protocol.channel import HostHandshake
from vm_launcher.channels.pace import Pace
from vm_launcher.channels.streams import GuestProtocolError, Streams
from vm_launcher.egress import Egress

_RETRY_SECONDS = 0.1
_HIGH_WATER = 1024 * 1024
_EVENTS_PER_SECOND = 5000
_BURST_EVENTS = 20_000
_BROKEN_EVENTS = 1000  # what a break of the protocol counts for
_GARBAGE_BYTES = 1024  # as many before the connection has begun count for an event
_LOOK_SECONDS = 15.0
_BREAKS_TOLD = 20  # a hostile guest does not fill the log

log = logging.getLogger(__name__)


class Session(asyncio.Protocol):
    """One connection to QEMU's socket; the guest may begin anew on it any number of times."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(_EVENTS_PER_SECOND, _BURST_EVENTS, self._loop.time())
        self._handshake: HostHandshake | None = HostHandshake()
        self._wait: asyncio.TimerHandle | None = None
        self._full = False
        self.streams: Streams | None = None
        self.epoch: int | None = None
        self.broken = 0
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def restart(self) -> None:
        """Drops every stream and waits for the guest to begin anew."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None
        self.epoch = None
        self._handshake = HostHandshake()

    def disconnect(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.restart()
        if self._wait is not None:
            self._wait.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """A guest that does not read is not read either, or its pings would fill our memory."""
        self._full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._wait is None:
            self._transport.resume_reading()
        if self.streams is not None:
            self.streams.resume()

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._slow_down(len(data) / _GARBAGE_BYTES)
            data = self._shake_hands(self._handshake, data)
        if not data or self.streams is None:
            return
        try:
            events = self.streams.receive(data)
        except GuestProtocolError as error:
            self._recover(data, error)
            events = _BROKEN_EVENTS
        self._slow_down(events)

    def _shake_hands(self, handshake: HostHandshake, data: bytes) -> bytes:
        heard = handshake.feed(data)
        self.epoch = handshake.epoch
        if heard.answer:
            self._send(heard.answer)
        if heard.connection:
            self._handshake = None
            self.streams = Streams(self._egress, self._send, lambda: self._full)
            self.streams.start()
        return heard.connection

    def _recover(self, data: bytes, error: GuestProtocolError) -> None:
        self.broken += 1
        level = logging.INFO if self.broken <= _BREAKS_TOLD else logging.DEBUG
        log.log(level, "the guest's net connection broke: %s", ascii(str(error))[1:-1])
        self.restart()
        self._shake_hands(cast(HostHandshake, self._handshake), data)

    def _slow_down(self, events: float) -> None:
        seconds = self._pace.spend(events, self._loop.time())
        if seconds and self._wait is None:
            self._transport.pause_reading()
            self._wait = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._wait = None
        if not self._full:
            self._transport.resume_reading()

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class NetServer:
    """Connects to the UNIX socket of the port's character device, again when it breaks."""

    def __init__(self, path: Path, egress: Egress, *, idle_seconds: float = 900.0) -> None:
        self._path = path
        self._egress = egress
        self._idle_seconds = idle_seconds
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken = 0
        egress.on_cut(self._cut)

    async def start(self) -> None:
        """Returns at once; the socket may come up later."""
        self._task = asyncio.create_task(self._serve())
        self._task.add_done_callback(_report)

    async def reset(self, epoch: int | None = None) -> None:
        """Drops every stream: the guest has a new epoch, or its port was closed.

        Does nothing where the connection is that epoch's already.
        """
        session = self._session
        if session is None or (epoch is not None and session.epoch == epoch):
            return
        session.restart()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def snapshot(self) -> dict[str, Any]:
        session = self._session
        streams = session.streams if session is not None else None
        return {
            "connected": session is not None,
            "ready": streams is not None,
            "streams": len(streams) if streams is not None else 0,
            "broken": self._broken + (session.broken if session is not None else 0),
        }

    async def _serve(self) -> None:
        while True:
            session = await self._connect()
            try:
                await self._watch(session)
            finally:
                self._session = None
                self._broken += session.broken
                session.disconnect()
                session.restart()

    async def _connect(self) -> Session:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, self._session = await loop.create_unix_connection(
                    lambda: Session(self._egress), str(self._path)
                )
            except (FileNotFoundError, ConnectionError):
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return self._session

    async def _watch(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        look = min(_LOOK_SECONDS, self._idle_seconds)
        while not session.lost.done():
            await asyncio.wait([session.lost], timeout=look)
            if session.streams is not None:
                session.streams.drop_idle(loop.time() - self._idle_seconds)

    def _cut(self) -> None:
        if self._session is not None and self._session.streams is not None:
            self._session.streams.end_all()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the net channel has ended: %s", error)
