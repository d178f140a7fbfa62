"""Files in blocks, so that memory stays flat while connection, hash and disk work at a time.

A long file goes past the page cache (O_DIRECT in open(2)): filling the cache takes more CPU than
hashing, and pushes out of it what somebody needs again. Where the file system cannot do that, it
goes through the cache as any other.
"""

import asyncio
import ctypes
import errno
import hashlib
import mmap
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path

BLOCK = 1 << 20
LONG = 32 << 20
"""Bytes from which on a file goes past the page cache; a shorter one is soon read again."""
_AHEAD = 2
"""Blocks that are read while one is sent."""
_ALIGNED = 4096
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_DIRECT = getattr(os, "O_DIRECT", 0)

Errors = tuple[type[Exception], ...]
Store = Callable[[memoryview], None]

_hashers = ThreadPoolExecutor(2, "hash")


class Incoming:
    """A file that grows at its end, and the SHA-256 of all of it. Its methods block."""

    def __init__(self, path: Path, offset: int, size: int, digest: "hashlib._Hash") -> None:
        """Goes on at `offset`, with the hash so far, and drops what is behind.

        `size` is what the file will have in the end.
        """
        self.offset = offset
        self.digest = digest
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._plain = os.open(path, flags, 0o666)
        os.ftruncate(self._plain, offset)
        self._direct = _open_direct(path, os.O_WRONLY) if size >= LONG else None

    def append(self, data: memoryview) -> None:
        """All of `data` or nothing. Raises OSError."""
        digest = self.digest.copy()
        hashing = _hashers.submit(digest.update, data)
        try:
            written = self._past_the_cache(data)
            _write_all(self._plain, data[written:], self.offset + written)
        except OSError:
            os.ftruncate(self._plain, self.offset)
            raise
        finally:
            hashing.result()
        self.offset, self.digest = self.offset + len(data), digest

    def sync(self) -> None:
        os.fsync(self._plain)

    def close(self) -> None:
        for descriptor in (self._plain, self._direct):
            if descriptor is not None:
                os.close(descriptor)

    def _past_the_cache(self, data: memoryview) -> int:
        """How much of it could be written so."""
        whole = len(data) - len(data) % _ALIGNED
        if self._direct is None or self.offset % _ALIGNED:
            return 0
        try:
            _write_all(self._direct, data[:whole], self.offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.close(self._direct)  # this disk wants more than we can promise
            self._direct = None
            return 0
        return whole


def _open_direct(path: Path, flags: int) -> int | None:
    """None where this cannot be done; the ordinary way says what else is wrong."""
    if not _DIRECT:
        return None
    with suppress(OSError):
        return os.open(path, flags | _DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
    return None


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


@cache
def keep_freed_memory() -> None:
    """Lets malloc keep up to 8 MiB for the next pieces of a body (mallopt(3)).

    It would give the memory of every piece back to the system, for 250 page faults per MiB.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)


def new_block() -> memoryview:
    """Memory that begins where a page begins, as O_DIRECT demands."""
    return memoryview(mmap.mmap(-1, BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


async def store_body(body: AsyncIterator[bytes], offset: int, store: Store, cuts: Errors) -> None:
    """Hands the body, which begins at byte `offset` of a file, to `store`, block by block.

    `store` runs in a thread; meanwhile the next block comes in, so memory stays flat at two of
    them. What came before one of `cuts` is stored before that is raised: the sender needn't repeat
    it. `store` is never at work when this returns, not even after a cancellation.
    """
    keep_freed_memory()
    busy: asyncio.Future[None] | None = None
    try:
        async for block in _blocks(body, offset, cuts):
            if busy is not None:
                await asyncio.shield(busy)
            busy = asyncio.ensure_future(asyncio.to_thread(store, block))
        if busy is not None:
            await asyncio.shield(busy)
    finally:
        if busy is not None:
            await asyncio.wait([busy])
            busy.exception()  # has been raised above, or something worse is


async def _blocks(
    body: AsyncIterator[bytes], offset: int, cuts: Errors
) -> AsyncIterator[memoryview]:
    """Each ends where a block of the file ends, and is good until the next but one is filled."""
    buffers = cycle((new_block(), new_block()))
    block, filled, room = next(buffers), 0, BLOCK - offset % BLOCK
    broken: Exception | None = None
    try:
        async for data in body:
            rest = memoryview(data)
            while rest:
                piece = rest[: room - filled]
                block[filled : filled + len(piece)] = piece
                filled, rest = filled + len(piece), rest[len(piece) :]
                if filled == room:
                    yield block[:filled]
                    block, filled, room = next(buffers), 0, BLOCK
    except cuts as error:
        broken = error
    if filled:
        yield block[:filled]
    if broken:
        raise broken


async def read_long(path: Path, offset: int, count: int) -> AsyncGenerator[memoryview, None]:
    """A stretch of a file past the page cache; close it (`contextlib.aclosing`).

    A block is good until the next but one is asked for.
    """
    file = await asyncio.to_thread(_open_to_read, path)
    buffers = cycle([new_block() for _ in range(_AHEAD + 2)])
    starts = deque(range(offset - offset % _ALIGNED, offset + count, BLOCK))
    reads: deque[tuple[int, asyncio.Future[memoryview]]] = deque()
    try:
        while starts or reads:
            while starts and len(reads) < _AHEAD:
                start = starts.popleft()
                read = asyncio.to_thread(_read, file, next(buffers), start)
                reads.append((start, asyncio.ensure_future(read)))
            start, reading = reads[0]
            data = await asyncio.shield(reading)
            reads.popleft()
            yield data[max(0, offset - start) : offset + count - start]
    finally:
        if reads:
            await asyncio.wait([reading for _, reading in reads])
        os.close(file)


def _open_to_read(path: Path) -> int:
    file = _open_direct(path, os.O_RDONLY)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if file is None else file


def _read(file: int, block: memoryview, start: int) -> memoryview:
    return block[: os.preadv(file, [block], start)]


def hash_file(path: Path, check: Callable[[], None] = lambda: None) -> "hashlib._Hash":
    """SHA-256 of a file so far. `check` is called often and may raise."""
    digest, block = hashlib.sha256(), new_block()
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            check()
            digest.update(block[:size])
    return digest
