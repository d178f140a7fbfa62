"""Follows one connection between pilot and manager, without I/O: bytes in, pieces out.

A piece is what a proxy hands on at once: a whole frame of the conversation (over a WebSocket or as
the body of a long poll), the head of a request, some bytes of a body. Nothing is changed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from http.client import parse_headers
from io import BytesIO

from copilot_agent.protocol.frames import ManagerFrame, PilotFrame

POLL_PATH = "/pilot/v1/frames"
TEXT, FINAL, MASKED = 0x1, 0x80, 0x80


class Way(StrEnum):
    UP = "up"  #: from the pilot
    DOWN = "down"  #: from the manager


@dataclass(frozen=True)
class Request:
    method: str
    path: str


@dataclass(frozen=True)
class Seen:
    """What a piece is; `moved` of `total` bytes of a body are through with it."""

    way: Way
    request: Request
    frame: PilotFrame | ManagerFrame | None = None
    moved: int = 0
    total: int = 0


@dataclass(frozen=True)
class Piece:
    data: bytes
    seen: Seen | None = None


@dataclass
class Head:
    first: str
    length: int | None
    """Of the body; None: in chunks, or until the end of the connection."""
    chunked: bool
    upgrade: bool


def read_head(data: bytes) -> Head:
    first, _, rest = data.partition(b"\r\n")
    headers = parse_headers(BytesIO(rest))
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    length = headers.get("Content-Length")
    upgrade = headers.get("Upgrade", "").lower() == "websocket"
    return Head(first.decode(), int(length) if length else None, chunked, upgrade)


class Conversation:
    """Both directions of one connection."""

    def __init__(self) -> None:
        self.up = Stream(Way.UP, self)
        self.down = Stream(Way.DOWN, self)
        self.asked: deque[Request] = deque()
        """Requests that have not been answered."""

    def switch(self) -> None:
        """To WebSocket frames."""
        self.up.socket = self.down.socket = True


class Stream:
    """One direction."""

    def __init__(self, way: Way, both: Conversation) -> None:
        self._way = way
        self._both = both
        self._buffer = b""
        self._body: Body | None = None
        self.socket = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What is complete with these bytes."""
        self._buffer += data
        while (piece := self._next()) is not None:
            yield piece

    def rest(self) -> bytes:
        """What was not complete at the end of the connection."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _next(self) -> Piece | None:
        if self.socket:
            return self._next_of_socket()
        if self._body is not None:
            return self._next_of_body(self._body)
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = read_head(self._buffer[: end + 4])
        return self._request(head, end + 4) if self._way is Way.UP else self._reply(head, end + 4)

    def _request(self, head: Head, end: int) -> Piece | None:
        method, path, _ = head.first.split(" ", 2)
        request = Request(method, path)
        if _polls(request) and not self._whole(end, head):
            return None
        self._both.asked.append(request)
        if _polls(request):
            return self._poll_frame(request, end + (head.length or 0), end)
        if head.chunked or head.length:
            self._body = Body(request, head.length)
        return Piece(self._take(end), Seen(self._way, request))

    def _reply(self, head: Head, end: int) -> Piece | None:
        status = int(head.first.split(" ", 2)[1])
        if status == 101:
            self._both.asked.popleft()
            self._both.switch()
            return Piece(self._take(end))
        if status == 100:
            return Piece(self._take(end))
        request = self._both.asked[0]
        if _polls(request) and status == 200 and not self._whole(end, head):
            return None
        self._both.asked.popleft()
        if _polls(request) and status == 200:
            return self._poll_frame(request, end + (head.length or 0), end)
        empty = request.method == "HEAD" or status in (204, 304) or head.length == 0
        if not empty:
            self._body = Body(request, head.length)
        return Piece(self._take(end))

    def _whole(self, end: int, head: Head) -> bool:
        if head.length is None:
            raise ValueError("a frame without Content-Length")
        return len(self._buffer) >= end + head.length

    def _poll_frame(self, request: Request, size: int, body: int) -> Piece:
        data = self._take(size)
        return Piece(data, Seen(self._way, request, self._frame(data[body:])))

    def _next_of_body(self, body: "Body") -> Piece | None:
        size = body.measure(self._buffer)
        if not size:
            return None
        if body.done:
            self._body = None
        seen = Seen(self._way, body.request, moved=body.moved, total=body.length or 0)
        return Piece(self._take(size), seen)

    def _next_of_socket(self) -> Piece | None:
        frame = socket_frame(self._buffer)
        if frame is None:
            return None
        opcode, payload, size = frame
        data = self._take(size)
        if opcode != FINAL | TEXT:
            return Piece(data)
        return Piece(data, Seen(self._way, Request("", ""), self._frame(payload)))

    def _frame(self, text: bytes) -> PilotFrame | ManagerFrame:
        model = PilotFrame if self._way is Way.UP else ManagerFrame
        return model.model_validate_json(text)

    def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class Body:
    """Finds the end of a message's body."""

    def __init__(self, request: Request, length: int | None) -> None:
        self.request = request
        self.length = length
        self.moved = 0
        self.done = False

    def measure(self, data: bytes) -> int:
        """How many of these bytes belong to the body and may go on."""
        if self.length is None:
            return self._chunk(data)
        size = min(len(data), self.length - self.moved)
        self.moved += size
        self.done = self.moved == self.length
        return size

    def _chunk(self, data: bytes) -> int:
        """The next whole chunk, with the lines around it."""
        line, newline, _ = data.partition(b"\r\n")
        if not newline:
            return 0
        size = int(line.split(b";")[0], 16)
        whole = len(line) + 2 + size + 2
        if len(data) < whole:
            return 0
        self.moved += size
        self.done = size == 0
        return whole


def socket_frame(data: bytes) -> tuple[int, bytes, int] | None:
    """First byte, payload and whole size of a WebSocket frame (RFC 6455); None: not yet there."""
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    for marker, width in ((126, 2), (127, 8)):
        if length == marker and at == 2:
            if len(data) < 2 + width:
                return None
            length, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
            break
    mask = b""
    if data[1] & MASKED:
        mask, at = data[at : at + 4], at + 4
    if len(data) < at + length:
        return None
    payload = data[at : at + length]
    if mask:
        repeated = mask * (length // 4 + 1)
        number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:length], "big")
        payload = number.to_bytes(length, "big")
    return data[0], payload, at + length


def _polls(request: Request) -> bool:
    return request.method == "POST" and request.path.startswith(POLL_PATH)
