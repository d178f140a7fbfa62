"""The guest's half of the HTTP/2 connection: CONNECT streams and the sockets they are pumped to.

The connection's window is credited when bytes arrive and a stream's when its socket has taken
them, so a stalled stream holds up at most its own window and never its neighbours.
"""

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hyperframe.frame

from copilot_agent.host_channel.errors import (
    ConnectionBrokenError,
    EgressRefusedError,
    UnreachableError,
)
from copilot_agent.protocol.channel import (
    MAX_FRAME_BYTES,
    MAX_STREAMS,
    REFUSED_HEADER,
    WINDOW_BYTES,
)

_CREDIT_BYTES = WINDOW_BYTES // 4
_CLOSED = (h2.exceptions.ProtocolError, KeyError)
"""A stream whose end h2 has seen already, while we are still at an earlier event of the batch."""
_LINGER_SECONDS = 5.0


def _say_little(frame: hyperframe.frame.DataFrame) -> str:
    return f"<{len(frame.data)} bytes>"


# h2 4.4 makes the text of every frame, for a trace that nobody reads: a third of a transfer's time.
hyperframe.frame.DataFrame._body_repr = _say_little  # type: ignore[assignment]


class Stream:
    """One CONNECT stream; `inner` is our end of the socket pair once it is established."""

    def __init__(self, number: int, host: str, port: int, on_closed: Callable[[], None]) -> None:
        self.number = number
        self.host = host
        self.port = port
        self.on_closed = on_closed
        self.answer: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self.inner: socket.socket | None = None
        self.outer: socket.socket | None = None
        self.pending: deque[memoryview] = deque()
        self.uncredited = 0
        self.reading = False
        self.writing = False
        self.sent_all = False
        self.received_all = False


class Streams:
    """All streams of one connection; `write` takes bytes for the port, `full` says it is full."""

    def __init__(self, write: Callable[[bytes], None], full: Callable[[], bool]) -> None:
        self._write = write
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._uncredited = 0
        self._h2 = _client()

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES - 65535)
        self._flush()

    def open(self, host: str, port: int, on_closed: Callable[[], None]) -> Stream:
        """Asks for a connection; the stream's `answer` becomes its socket or an error.

        Raises UnreachableError where HTTP/2 does not allow one more, or not such a name.
        """
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, [(":method", "CONNECT"), (":authority", authority)])
        except h2.exceptions.ProtocolError as error:
            raise UnreachableError(f"not_asked: {error}", host, port) from error
        stream = self._streams[number] = Stream(number, host, port, on_closed)
        self._flush()
        return stream

    def abandon(self, stream: Stream) -> None:
        """Nobody waits for this stream's answer any more."""
        if stream.outer is not None:
            stream.outer.close()
        self._give_up(stream)

    def ping(self) -> None:
        self._h2.ping(b"copilot.")
        self._flush()

    def receive(self, data: bytes) -> None:
        """Raises ConnectionBrokenError when the host ends it or its bytes make no sense."""
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except (h2.exceptions.H2Error, ValueError) as error:
            raise ConnectionBrokenError(f"{type(error).__name__}: {error}") from error
        self._flush()

    def resume(self) -> None:
        """The port takes bytes again."""
        self._read_on()

    def fail(self) -> None:
        """The connection is gone: every stream ends with ConnectionResetError."""
        for stream in list(self._streams.values()):
            self._break(stream, UnreachableError("connection_lost", stream.host, stream.port))

    def _give_up(self, stream: Stream) -> None:
        if stream.number in self._streams:
            self._abort(stream)
            self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._received(event)
            case h2.events.ResponseReceived():
                self._answered(event)
            case h2.events.StreamEnded():
                self._ended(event)
            case h2.events.StreamReset():
                self._reset(event)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._read_on()
            case h2.events.ConnectionTerminated():
                raise ConnectionBrokenError("the launcher ended the connection")
            case _:
                pass

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
        if not stream.writing:
            self._write_inner(stream)

    def _answered(self, event: h2.events.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        headers = {_text(name): _text(value) for name, value in event.headers}
        status = headers.get(":status", "")
        if status == "200":
            self._establish(stream)
            return
        reason = headers.get(REFUSED_HEADER, status)
        kind = EgressRefusedError if status in ("403", "429") else UnreachableError
        self._abort(stream, kind(reason, stream.host, stream.port))

    def _establish(self, stream: Stream) -> None:
        if stream.answer.done():  # nobody waits any more
            self._abort(stream)
            return
        outer, inner = socket.socketpair()
        outer.setblocking(False)
        inner.setblocking(False)
        stream.inner, stream.outer = inner, outer
        stream.answer.set_result(outer)
        self._read_inner(stream)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        if (stream := self._streams.get(event.stream_id)) is None:
            return
        stream.received_all = True
        if stream.inner is None:
            self._abort(stream, UnreachableError("no_answer", stream.host, stream.port))
        elif not stream.pending:
            self._close_inner_write(stream)

    def _reset(self, event: h2.events.StreamReset) -> None:
        if stream := self._streams.get(event.stream_id):
            self._break(stream, UnreachableError("connection_lost", stream.host, stream.port))

    # From the socket pair to the port.

    def _read_on(self) -> None:
        for stream in self._streams.values():
            if stream.inner is not None and not stream.reading and not stream.sent_all:
                self._read_inner(stream)

    def _read_inner(self, stream: Stream) -> None:
        assert stream.inner is not None  # noqa: S101
        stream.reading = True
        self._loop.add_reader(stream.inner, self._readable, stream)

    def _stop_reading(self, stream: Stream) -> None:
        if stream.reading and stream.inner is not None:
            stream.reading = False
            self._loop.remove_reader(stream.inner)

    def _readable(self, stream: Stream) -> None:
        assert stream.inner is not None  # noqa: S101
        room = 0 if self._full() else self._h2.local_flow_control_window(stream.number)
        if room <= 0:
            self._stop_reading(stream)
            return
        try:
            data = stream.inner.recv(min(room, self._h2.max_outbound_frame_size))
        except BlockingIOError:
            return
        except OSError:
            self._abort(stream)
            self._flush()
            return
        if data:
            self._h2.send_data(stream.number, data)
        else:
            self._stop_reading(stream)
            stream.sent_all = True
            self._h2.end_stream(stream.number)
            if _deserted(stream.inner):
                self._loop.call_later(_LINGER_SECONDS, self._give_up, stream)
            self._finish(stream)
        self._flush()

    # From the port to the socket pair.

    def _write_inner(self, stream: Stream) -> None:
        try:
            self._write_pending(stream)
        except OSError:  # our user has closed its end
            self._abort(stream)
            return
        wanted = bool(stream.pending)
        if wanted != stream.writing and stream.inner is not None:
            stream.writing = wanted
            if wanted:
                self._loop.add_writer(stream.inner, self._writable, stream)
            else:
                self._loop.remove_writer(stream.inner)
        if not wanted and stream.received_all:
            self._close_inner_write(stream)

    def _writable(self, stream: Stream) -> None:
        self._write_inner(stream)
        self._flush()

    def _write_pending(self, stream: Stream) -> None:
        assert stream.inner is not None  # noqa: S101
        while stream.pending:
            first = stream.pending[0]
            try:
                taken = stream.inner.send(first)
            except BlockingIOError:
                return
            self._credit(stream, taken)
            if taken < len(first):
                stream.pending[0] = first[taken:]
            else:
                stream.pending.popleft()

    def _credit(self, stream: Stream, taken: int) -> None:
        stream.uncredited += taken
        if stream.uncredited >= _CREDIT_BYTES and not stream.received_all:
            with contextlib.suppress(*_CLOSED):
                self._h2.increment_flow_control_window(stream.uncredited, stream.number)
            stream.uncredited = 0

    def _close_inner_write(self, stream: Stream) -> None:
        assert stream.inner is not None  # noqa: S101
        try:
            stream.inner.shutdown(socket.SHUT_WR)
        except OSError:  # our user has closed its end already
            self._abort(stream)
            return
        self._finish(stream)

    # The end.

    def _finish(self, stream: Stream) -> None:
        if stream.sent_all and stream.received_all and not stream.pending:
            self._drop(stream)

    def _abort(self, stream: Stream, error: Exception | None = None) -> None:
        """Ends the stream from our side, in both directions."""
        if not (stream.sent_all and stream.received_all):
            with contextlib.suppress(*_CLOSED):
                self._h2.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        self._break(stream, error)

    def _break(self, stream: Stream, error: Exception | None) -> None:
        if error is not None and not stream.answer.done():
            stream.answer.set_exception(error)
        _poison(stream)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        if self._streams.pop(stream.number, None) is not None:
            stream.on_closed()
        if stream.inner is not None:
            self._loop.remove_reader(stream.inner)
            self._loop.remove_writer(stream.inner)
            stream.inner.close()
            stream.inner = None
        stream.pending.clear()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._write(data)


def _client() -> h2.connection.H2Connection:
    codes = h2.settings.SettingCodes
    config = h2.config.H2Configuration(client_side=True, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            codes.ENABLE_PUSH: 0,
            codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            codes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            codes.MAX_HEADER_LIST_SIZE: 8192,
        },
    )
    connection.max_inbound_frame_size = MAX_FRAME_BYTES  # the settings alone don't raise it
    return connection


def _deserted(inner: socket.socket) -> bool:
    """Whether our user has closed its end altogether, not only for writing."""
    poll = select.poll()
    poll.register(inner, 0)
    return any(flags & select.POLLHUP for _, flags in poll.poll(0))


def _poison(stream: Stream) -> None:
    """Makes our user's next read fail instead of looking like an orderly end.

    Linux answers with ECONNRESET when the other end of a UNIX socket is closed with unread bytes
    in its queue; we put one there through our user's own socket, if it is still open.
    """
    if stream.outer is None or stream.outer.fileno() < 0:
        return
    try:
        stream.outer.send(b"\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return  # the queue is full, which does as well, or the user has shut it down


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
