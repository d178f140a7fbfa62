"""The launcher's half of the HTTP/2 connection: CONNECT requests and the sockets they lead to.

As in the guest, the connection's window is credited when bytes arrive and a stream's when its
socket has taken them. Sockets are read only when what they give can be sent at once.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections import deque
from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from copilot_agent.protocol.channel import (
    MAX_FRAME_BYTES,
    MAX_STREAMS,
    REFUSED_HEADER,
    WINDOW_BYTES,
)
from vm_launcher.channels.pace import Pace
from vm_launcher.egress import Egress, EgressRefusedError

_CREDIT_BYTES = WINDOW_BYTES // 4
_CLOSED = (h2.exceptions.ProtocolError, KeyError)
"""A stream whose end h2 has seen already, while we are still at an earlier event of the batch."""
_MAX_HELD_BYTES = 32 * 1024 * 1024
_OPENINGS_PER_SECOND = 100
_BURST_OPENINGS = 1000
_THROTTLE_SECONDS = 0.05
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the far end sees a reset, not an orderly end


class GuestProtocolError(Exception):
    """The guest's bytes make no sense, or it has ended the connection."""


class Stream:
    """One CONNECT request; `outer` is the socket to the target once it is connected."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.active_at = now
        self.opening: asyncio.Task[None] | None = None
        self.outer: socket.socket | None = None
        self.pending: deque[memoryview] = deque()
        self.held = 0
        self.uncredited = 0
        self.reading = False
        self.writing = False
        self.sent_all = False
        self.received_all = False


class Streams:
    """All streams of one connection; `write` takes bytes for the port, `full` says it is full."""

    def __init__(
        self, egress: Egress, write: Callable[[bytes], None], full: Callable[[], bool]
    ) -> None:
        self._egress = egress
        self._write = write
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._uncredited = 0
        self._held = 0
        self._openings = Pace(_OPENINGS_PER_SECOND, _BURST_OPENINGS, self._loop.time())
        self._throttle: asyncio.TimerHandle | None = None
        self._h2 = _server()

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES - 65535)

    def receive(self, data: bytes) -> int:
        """The number of events in `data`. Raises GuestProtocolError."""
        try:
            events = self._h2.receive_data(data)
            for event in events:
                self._handle(event)
        except (h2.exceptions.H2Error, ValueError, KeyError) as error:
            raise GuestProtocolError(f"{type(error).__name__}: {error}") from error
        self._flush()
        return len(events)

    def resume(self) -> None:
        """The port takes bytes again, or the budget has been filled up."""
        for stream in list(self._streams.values()):
            if stream.outer is not None:
                self._read_on(stream)
                self._write_on(stream)
        self._flush()

    def drop_idle(self, before: float) -> None:
        """Ends the streams on which nothing has moved since `before`, in the loop's time."""
        for stream in [one for one in self._streams.values() if one.active_at < before]:
            self._abort(stream)
        self._flush()

    def end_all(self) -> None:
        """Ends every stream, and tells the guest."""
        for stream in list(self._streams.values()):
            self._abort(stream)
        self._flush()

    def close(self) -> None:
        """The connection is gone: ends every stream without a word."""
        if self._throttle is not None:
            self._throttle.cancel()
        for stream in list(self._streams.values()):
            self._drop(stream, abort=True)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._received(event)
            case h2.events.RequestReceived():
                self._requested(event)
            case h2.events.StreamEnded():
                self._ended(event)
            case h2.events.StreamReset():
                if stream := self._streams.get(event.stream_id):
                    self._drop(stream, abort=True)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    self._read_on(stream)
            case h2.events.ConnectionTerminated():
                raise GuestProtocolError("the guest ended the connection")
            case _:
                pass

    # Opening.

    def _requested(self, event: h2.events.RequestReceived) -> None:
        now = self._loop.time()
        stream = self._streams[event.stream_id] = Stream(event.stream_id, now)
        headers = {_text(name): _text(value) for name, value in event.headers}
        target = _target(headers.get(":authority", ""))
        if headers.get(":method") != "CONNECT" or target is None:
            self._egress.count_refused(headers.get(":authority", ""), 0, "malformed")
            self._refuse(stream, 400, "malformed")
        elif self._openings.spend(1, now):
            self._egress.count_refused(*target, "too_fast")
            self._refuse(stream, 429, "too_fast")
        else:
            stream.opening = self._loop.create_task(self._open(stream, *target))

    async def _open(self, stream: Stream, host: str, port: int) -> None:
        try:
            outer = await self._egress.connect(host, port)
        except EgressRefusedError as error:
            self._refuse(stream, 403, error.reason)
        except TimeoutError:
            self._refuse(stream, 504, "timeout")
        except OSError as error:
            self._refuse(stream, 502, _word(error))
        else:
            self._establish(stream, outer)
        self._flush()

    def _establish(self, stream: Stream, outer: socket.socket) -> None:
        stream.opening = None
        stream.outer = outer
        stream.active_at = self._loop.time()
        self._h2.send_headers(stream.number, [(":status", "200")])
        self._read_on(stream)
        self._write_on(stream)

    def _refuse(self, stream: Stream, status: int, reason: str) -> None:
        stream.opening = None
        headers = [(":status", str(status)), (REFUSED_HEADER, reason)]
        with contextlib.suppress(*_CLOSED):
            self._h2.send_headers(stream.number, headers, end_stream=True)
        self._drop(stream, abort=False)

    # From the target to the guest.

    def _read_on(self, stream: Stream) -> None:
        if stream.outer is not None and not stream.reading and not stream.sent_all:
            stream.reading = True
            self._loop.add_reader(stream.outer, self._readable, stream)

    def _stop_reading(self, stream: Stream) -> None:
        if stream.reading and stream.outer is not None:
            stream.reading = False
            self._loop.remove_reader(stream.outer)

    def _readable(self, stream: Stream) -> None:
        room = self._room(stream)
        if room <= 0 or stream.outer is None:
            self._stop_reading(stream)
            return
        try:
            data = stream.outer.recv(room)
        except BlockingIOError:
            return
        except OSError:
            self._abort(stream)
            self._flush()
            return
        if data:
            stream.active_at = self._loop.time()
            self._h2.send_data(stream.number, data)
            self._egress.count_in(len(data))
        else:
            self._stop_reading(stream)
            stream.sent_all = True
            self._h2.end_stream(stream.number)
            self._finish(stream)
        self._flush()

    def _room(self, stream: Stream) -> int:
        if self._full():
            return 0
        allowed = self._egress.room()
        if not allowed:
            self._wait_for_budget()
        return min(
            allowed,
            self._h2.local_flow_control_window(stream.number),
            self._h2.max_outbound_frame_size,
            MAX_FRAME_BYTES,
        )

    def _wait_for_budget(self) -> None:
        if self._throttle is None:
            self._throttle = self._loop.call_later(_THROTTLE_SECONDS, self._budget_back)

    def _budget_back(self) -> None:
        self._throttle = None
        self.resume()

    # From the guest to the target.

    def _received(self, event: h2.events.DataReceived) -> None:
        self._uncredited += event.flow_controlled_length
        if self._uncredited >= _CREDIT_BYTES:
            self._h2.increment_flow_control_window(self._uncredited)
            self._uncredited = 0
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        self._credit(stream, event.flow_controlled_length - len(event.data))
        if event.data:
            stream.pending.append(memoryview(event.data))
            stream.held += len(event.data)
            self._held += len(event.data)
        if not stream.writing:
            self._write_on(stream)
        if self._held > _MAX_HELD_BYTES:
            self._abort(max(self._streams.values(), key=lambda one: one.held))

    def _ended(self, event: h2.events.StreamEnded) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.received_all = True
            if not stream.writing:
                self._write_on(stream)

    def _write_on(self, stream: Stream) -> None:
        if stream.outer is None:
            return
        try:
            blocked = self._write_pending(stream)
            self._watch_writing(stream, blocked)
            if stream.received_all and not stream.pending:
                stream.outer.shutdown(socket.SHUT_WR)
                self._finish(stream)
        except OSError:
            self._abort(stream)

    def _writable(self, stream: Stream) -> None:
        self._write_on(stream)
        self._flush()

    def _write_pending(self, stream: Stream) -> bool:
        """Whether the socket, not the budget, is what stops us."""
        while stream.pending and stream.outer is not None:
            room = self._egress.room()
            if not room:
                self._wait_for_budget()
                return False
            first = stream.pending[0]
            try:
                taken = stream.outer.send(first[:room])
            except BlockingIOError:
                return True
            self._took(stream, taken)
            if taken < len(first):
                stream.pending[0] = first[taken:]
            else:
                stream.pending.popleft()
            self._egress.count_out(taken)
        return False

    def _watch_writing(self, stream: Stream, wanted: bool) -> None:
        if wanted == stream.writing or stream.outer is None:
            return
        stream.writing = wanted
        if wanted:
            self._loop.add_writer(stream.outer, self._writable, stream)
        else:
            self._loop.remove_writer(stream.outer)

    def _took(self, stream: Stream, taken: int) -> None:
        stream.active_at = self._loop.time()
        stream.held -= taken
        self._held -= taken
        self._credit(stream, taken)

    def _credit(self, stream: Stream, taken: int) -> None:
        stream.uncredited += taken
        if stream.uncredited >= _CREDIT_BYTES and not stream.received_all:
            with contextlib.suppress(*_CLOSED):
                self._h2.increment_flow_control_window(stream.uncredited, stream.number)
            stream.uncredited = 0

    # The end.

    def _finish(self, stream: Stream) -> None:
        if stream.sent_all and stream.received_all and not stream.pending:
            self._drop(stream, abort=False)

    def _abort(self, stream: Stream) -> None:
        if stream.number in self._streams and not (stream.sent_all and stream.received_all):
            with contextlib.suppress(*_CLOSED):
                self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CONNECT_ERROR)
        self._drop(stream, abort=True)

    def _drop(self, stream: Stream, *, abort: bool) -> None:
        if self._streams.pop(stream.number, None) is None:
            return
        self._held -= stream.held
        stream.pending.clear()
        if stream.opening is not None:
            stream.opening.cancel()
        if stream.outer is None:
            return
        self._loop.remove_reader(stream.outer)
        self._loop.remove_writer(stream.outer)
        if abort:
            stream.outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        stream.outer.close()
        stream.outer = None

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._write(data)


def _server() -> h2.connection.H2Connection:
    codes = h2.settings.SettingCodes
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.local_settings = h2.settings.Settings(
        client=False,
        initial_values={
            codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            codes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            codes.MAX_HEADER_LIST_SIZE: 8192,
        },
    )
    connection.max_inbound_frame_size = MAX_FRAME_BYTES  # the settings alone don't raise it
    connection.decoder.max_header_list_size = 8192
    return connection


def _target(authority: str) -> tuple[str, int] | None:
    host, colon, port = authority.rpartition(":")
    if not colon or not host or len(port) > 5 or not port.isascii() or not port.isdigit():
        return None
    return host, int(port)


def _word(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "name_not_found"
    return errno.errorcode.get(error.errno or 0, "failed").lower()


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
