"""Files on a Chirp server: gets and puts whole ones.

The protocol is that of the Cooperative Computing Tools (chirp_protocol.h, auth.c, chirp_server.c),
tried against their chirp_server 9.9. Text lines go both ways:

    address                  -> yes, yes, yes, `address`, the address as the server sees it
    getfile PATH             -> size, then so many bytes
    putfile PATH MODE SIZE   -> 0; then so many bytes are sent, and answered by their number
    mkdir PATH MODE          -> 0

Paths are percent-encoded, numbers are decimal, and a negative answer is an error of `_ERRORS`.
Nothing is encrypted, and `address` is no proof of anything: see docs/copilot1.md.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from copilot_agent.transports.base import Moved

T = TypeVar("T")

BLOCK = 1 << 20
MAX_LINE = 1024
"""The server's own bound."""
_NUMBER = re.compile(rb"-?[0-9]{1,18}\n")
_ERRORS = {
    -1: ("the server does not know us", False),
    -2: ("the server gives no right to this", False),
    -3: ("there is no such file or directory", False),
    -4: ("it exists already, and may not be replaced", False),
    -5: ("it is too large for the server", False),
    -6: ("the server's disk is full", True),
    -7: ("the server has no memory left", True),
    -8: ("the server does not understand the request", False),
    -9: ("the server has too many open files", True),
    -10: ("it is busy", True),
    -11: ("the server wants to be asked again", True),
    -13: ("it is a directory", False),
    -14: ("a part of its path is no directory", False),
}


class ChirpError(Exception):
    """`retryable`: the same call may work later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    connect: float = 20.0
    silence: float = 60.0
    """Without a byte in either direction."""
    whole: float = 600.0
    """After which a file must have moved at `slowest` bytes a second on average."""
    slowest: float = 1024.0


class Chirp:
    """One connection; made by `connected`. Its methods raise ChirpError and OSError (our disk)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience

    async def log_in(self) -> None:
        self._writer.write(b"address\n")
        for _ in range(3):  # it knows the method; it likes the address; we are in
            if await self._line() != b"yes\n":
                raise ChirpError("the server takes nobody by address", retryable=False)
        for _ in range(2):  # the method, and who we are
            await self._line()

    async def get_file(
        self, path: str, target: Path, *, max_bytes: int, moved: Moved | None = None
    ) -> int:
        """Into a new file; returns its size."""
        size = await self._ask(f"getfile {_encoded(path)}")
        if size > max_bytes:
            text = f"{size} bytes, more than the {max_bytes} there is room for"
            raise ChirpError(text, retryable=False)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb", buffering=0) as file:
            await self._receive(file, size, moved)
        return size

    async def put_file(
        self, source: BinaryIO, path: str, *, size: int, moved: Moved | None = None
    ) -> None:
        """`size` bytes from where `source` stands; replaces what is there if the server allows."""
        await self._ask(f"putfile {_encoded(path)} {0o600} {size}")
        await self._send(source, size, moved)
        if (taken := await self._number()) != size:
            raise ChirpError(f"the server took {taken} of {size} bytes", retryable=True)

    async def make_directory(self, path: str) -> None:
        await self._ask(f"mkdir {_encoded(path)} {0o700}")

    # ----- bytes

    async def _receive(self, file: BinaryIO, size: int, moved: Moved | None) -> None:
        left, pace = size, self._pace(size)
        while left:
            data = await self._in_time(self._reader.read(min(left, BLOCK)))
            if not data:
                raise ChirpError(f"the connection ended {left} bytes early", retryable=True)
            await asyncio.to_thread(_write_all, file, data)
            left -= len(data)
            pace(left)
            if moved is not None:
                moved(len(data))

    async def _send(self, file: BinaryIO, size: int, moved: Moved | None) -> None:
        left, pace = size, self._pace(size)
        while left:
            data = await asyncio.to_thread(file.read, min(left, BLOCK))
            if not data:
                raise ChirpError("the file became shorter on the way", retryable=False)
            self._writer.write(data)
            await self._in_time(self._writer.drain())
            left -= len(data)
            pace(left)
            if moved is not None:
                moved(len(data))

    def _pace(self, size: int) -> Callable[[int], None]:
        """A server that lets bytes drip would hold this agent for ever."""
        began = time.monotonic()

        def check(left: int) -> None:
            spent = time.monotonic() - began
            if spent > self._patience.whole and (size - left) / spent < self._patience.slowest:
                raise ChirpError("the server is too slow", retryable=True)

        return check

    # ----- lines

    async def _ask(self, request: str) -> int:
        line = request.encode("ascii") + b"\n"
        if len(line) > MAX_LINE:
            raise ChirpError("the path is too long for a Chirp server", retryable=False)
        self._writer.write(line)
        return await self._number()

    async def _number(self) -> int:
        line = await self._line()
        if not _NUMBER.fullmatch(line):
            raise ChirpError("the server's answer is no number", retryable=False)
        number = int(line)
        if number < 0:
            words, retryable = _ERRORS.get(number, (f"the server's error {-number}", True))
            raise ChirpError(words, retryable=retryable)
        return number

    async def _line(self) -> bytes:
        try:
            line = await self._in_time(self._reader.readline())
        except ValueError:
            line = bytes(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise ChirpError("the server's answer has no end", retryable=False)
        if not line.endswith(b"\n"):
            raise ChirpError("the connection ended", retryable=True)
        return line

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._patience.silence):
                return await work
        except TimeoutError:
            raise ChirpError("the server does not answer", retryable=True) from None
        except OSError as error:
            text = f"the connection broke: {error.strerror or error}"
            raise ChirpError(text, retryable=True) from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _encoded(path: str) -> str:
    """From the server's top, whatever the path begins with."""
    return "/" + quote(path.lstrip("/"), safe="/._-+@:")


@asynccontextmanager
async def connected(address: str, patience: Patience | None = None) -> AsyncIterator[Chirp]:
    """Logged in at `host:port`. Raises ChirpError."""
    patience = patience or Patience()
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(patience.connect):
            reader, writer = await asyncio.open_connection(host, int(port), limit=BLOCK)
    except (OSError, TimeoutError, OverflowError) as error:
        text = f"the Chirp server {address} is not reachable: {error or 'it does not answer'}"
        raise ChirpError(text, retryable=True) from error
    try:
        chirp = Chirp(reader, writer, patience)
        await chirp.log_in()
        yield chirp
    except ChirpError as error:
        raise ChirpError(f"{address}: {error.message}", retryable=error.retryable) from error
    finally:
        writer.transport.abort()
