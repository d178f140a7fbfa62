"""Keeps what a payload prints: the first and the last half of it, whatever the amount.

Bytes go from the pipe to the file inside the kernel (splice), so that a payload which prints
gigabytes costs the agent little and is neither blocked nor killed.
"""

import fcntl
import os
import select
import tempfile
from asyncio import AbstractEventLoop
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_PIPE_BYTES = 256 * 1024
_TURNS = 8
"""Pieces taken at once before others get their turn."""


class LogFile:
    """A pipe's reader that fills a bounded file; there is none if nothing comes."""

    def __init__(self, path: Path, limit: int) -> None:
        """`limit` in bytes. Raises OSError."""
        self._path = path
        self._half = max(limit // 2, 1)
        self._file = -1
        self._ring: BinaryIO | None = None
        self._total = 0
        self._lost = 0
        self._loop: AbstractEventLoop | None = None
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        """The writing end is handed to the payload and then closed by `attach`."""
        with suppress(OSError):  # beyond the user's share of pipe memory the small default does
            fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def total(self) -> int:
        """Bytes printed so far."""
        return self._total

    def attach(self, loop: AbstractEventLoop) -> None:
        """Starts pumping; the payload has the writing end by now."""
        os.close(self.writer)
        self.writer = -1
        os.set_blocking(self._reader, False)
        self._loop = loop
        loop.add_reader(self._reader, self._pump)

    def drain(self) -> None:
        """Takes what is still in the pipe, and stops: the payload's processes are dead."""
        for _ in range(_TURNS):  # much more than a pipe holds, but not for ever
            if self._loop is None:
                return
            self._pump()
        self._stop()

    def close(self) -> None:
        """Puts the file together: head, a line about what was cut, tail."""
        self._stop()
        for handle in {self._reader, self.writer} - {-1}:
            os.close(handle)
        self._reader = self.writer = -1
        if self._file == -1 and not self._lost:
            return
        try:
            self._open()
            end = self._append_tail()
            if self._lost:
                line = f"\n[... {self._lost} bytes lost: no space left on the disk ...]\n"
                os.pwrite(self._file, line.encode(), end)
        finally:
            if self._file != -1:
                os.close(self._file)
            self._file = -1
            self._lost = 0
            if self._ring is not None:
                self._ring.close()

    def tail(self, size: int) -> bytes:
        """The last bytes printed, at most `size` and half the limit; only before `close`."""
        if self._file == -1:
            return b""
        kept = self._total - self._half
        if kept <= 0 or self._ring is None:
            start = max(0, self._total - size)
            return os.pread(self._file, self._total - start, start)
        tail = self._read_ring(max(0, kept - min(size, self._half)), kept)
        if kept > self._half or kept >= size:  # what lies before the ring is lost or not wanted
            return tail
        return os.pread(self._file, size - kept, max(0, self._half - (size - kept))) + tail

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._reader)
            self._loop = None

    def _pump(self) -> None:
        for _ in range(_TURNS):
            try:
                if not self._take():
                    self._stop()
                    return
            except BlockingIOError:
                return

    def _take(self) -> bool:
        """One piece; False at the end of the pipe. Raises BlockingIOError."""
        try:
            moved = self._move()
            self._total += moved
        except BlockingIOError:
            raise
        except OSError:  # no space left: the payload goes on, its words are lost
            moved = len(os.read(self._reader, _PIPE_BYTES))
            self._lost += moved
        return moved > 0

    def _open(self) -> None:
        if self._file == -1:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)

    def _move(self) -> int:
        if self._file == -1:
            if not _anything(self._reader):
                return 0
            self._open()
        room = self._half - self._total
        if room > 0:
            return self._splice(self._file, min(room, _PIPE_BYTES), self._total)
        if self._ring is None:
            self._ring = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
        position = (self._total - self._half) % self._half
        count = min(self._half - position, _PIPE_BYTES)
        return self._splice(self._ring.fileno(), count, position)

    def _splice(self, target: int, count: int, offset: int) -> int:
        return os.splice(self._reader, target, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)

    def _append_tail(self) -> int:
        """Returns where the file ends."""
        kept = self._total - self._half
        if self._ring is None or kept <= 0:
            return self._total
        cut = max(0, kept - self._half)
        end = self._half
        if cut:
            line = (
                f"\n[... {cut} bytes cut here: the log is limited to {2 * self._half} bytes ...]\n"
            )
            end += os.pwrite(self._file, line.encode(), end)
        position = cut
        while position < kept:
            piece = self._read_ring(position, min(kept, position + (1 << 20)))
            if not piece:
                break
            end += os.pwrite(self._file, piece, end)
            position += len(piece)
        return end

    def _read_ring(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of what came after the head; the ring still has them."""
        assert self._ring is not None  # noqa: S101 - for the type checker; callers looked
        pieces = []
        while start < stop:
            position = start % self._half
            count = min(stop - start, self._half - position)
            piece = os.pread(self._ring.fileno(), count, position)
            if not piece:
                break
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


def _anything(pipe: int) -> bool:
    """Whether bytes wait; False at the end of the pipe. Raises BlockingIOError."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not (events := poll.poll(0)):
        raise BlockingIOError
    return bool(events[0][1] & select.POLLIN)


def printable(raw: bytes) -> str:
    """Text that is safe to show: control characters other than newline and tab are escaped."""
    text = raw.decode("utf-8", "replace")
    return "".join(char if _harmless(char) else _escape(char) for char in text)


def _harmless(char: str) -> bool:
    if char in "\n\t":
        return True
    code = ord(char)
    overrides = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x2028, 0x2029)
    return not (code < 0x20 or 0x7F <= code < 0xA0 or overrides)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
