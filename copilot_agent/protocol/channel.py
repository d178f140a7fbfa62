"""How bytes on the two ports are cut up: lines on `ctrl`, and the start of `net`'s connection.

Neither end of a virtio-serial port learns reliably that the other one began anew: bytes of an
earlier epoch may still be under way, and the last message before a crash may be cut in half. So
`net` starts with a handshake that finds itself in any garbage:

    guest   mark                      64 bytes: name, epoch, a fresh nonce
    host    the same mark             the guest drops everything that came before its own mark
    guest   HTTP/2 preface …          the host drops everything that came before mark + preface

Until it has seen a mark the host sends nothing but `FILLER`, at most once: more zeros than a frame
is long, so that a guest that believes itself connected meets a protocol error and starts again.
An unanswered guest repeats its mark, with the same filler before it, to the same end.
"""

import re
from dataclasses import dataclass

MAX_FRAME_BYTES = 64 * 1024
"""Largest HTTP/2 frame on `net`, for both directions."""

WINDOW_BYTES = 512 * 1024
"""Flow control window of `net`'s connection and of each stream."""

MAX_STREAMS = 256
"""Connections that a guest may have open at once."""

REFUSED_HEADER = "copilot-refused"
"""Response header that says in one word why a CONNECT did not succeed."""

FILLER = bytes(MAX_FRAME_BYTES + 64)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NAME = b"copilot-net/1 "
_MARK = re.compile(_NAME + rb"([0-9a-f]{16}) ([0-9a-f]{32})\n")
_MARK_BYTES = 64


class LineSplitter:
    """Cuts a stream of bytes into lines; drops and counts those longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False
        self.oversized = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are now complete, without their ends; empty ones are left out."""
        *complete, rest = data.split(b"\n")
        lines = [line for part in complete if (line := self._finish(part))]
        self._append(rest)
        return lines

    def _finish(self, part: bytes) -> bytes:
        self._append(part)
        line = bytes(self._rest)
        self._rest.clear()
        self._skipping = False
        return line

    def _append(self, part: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(part) > self._limit:
            self.oversized += 1
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += part


def mark(epoch: int, nonce: bytes) -> bytes:
    """The first bytes of a connection; `nonce` has 16 bytes and is never used twice."""
    return _NAME + b"%016x %s\n" % (epoch, nonce.hex().encode())


class GuestHandshake:
    """Finds the host's answer to `mark` in what the port delivers."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._answered = False
        self._buffer = b""

    @property
    def answered(self) -> bool:
        """The preface may be sent."""
        return self._answered

    def feed(self, data: bytes) -> bytes:
        """The connection's own bytes; empty until there are some."""
        self._buffer += data
        if not self._answered and not self._find():
            return b""
        while self._buffer[:1] == self._mark[:1]:  # a second answer; no frame starts like that
            if len(self._buffer) < _MARK_BYTES:
                return b""
            self._buffer = self._buffer[_MARK_BYTES:]
        rest, self._buffer = self._buffer, b""
        return rest

    def _find(self) -> bool:
        place = self._buffer.find(self._mark)
        if place < 0:
            self._buffer = self._buffer[-_MARK_BYTES:]
            return False
        self._buffer = self._buffer[place + _MARK_BYTES :]
        self._answered = True
        return True


@dataclass(frozen=True)
class Heard:
    """What the host makes of some bytes before the connection has begun."""

    answer: bytes = b""
    """To be sent to the guest."""
    connection: bytes = b""
    """The connection's first bytes; the handshake is over once there are some."""


class HostHandshake:
    """Finds a guest's mark and preface in what the port delivers."""

    def __init__(self) -> None:
        self._buffer = b""
        self._mark = b""
        self._complained = False
        self.epoch: int | None = None

    def feed(self, data: bytes) -> Heard:
        self._buffer += data
        answer = b""
        while found := _MARK.search(self._buffer):
            if found.group() != self._mark:
                self._mark = answer = found.group()
                self.epoch = int(found.group(1), 16)
            self._buffer = self._buffer[found.end() :]
            if self._buffer.startswith(_PREFACE):
                return self._begin(answer)
        if self._mark and self._buffer.startswith(_PREFACE):
            return self._begin(answer)
        answer = answer or self._complaint()
        self._buffer = self._buffer[-_MARK_BYTES:]
        return Heard(answer)

    def _begin(self, answer: bytes) -> Heard:
        connection, self._buffer = self._buffer, b""
        return Heard(answer, connection)

    def _complaint(self) -> bytes:
        may_be_mark = _NAME.startswith(self._buffer[: len(_NAME)])
        if self._mark or self._complained or may_be_mark:
            return b""
        self._complained = True
        return FILLER
