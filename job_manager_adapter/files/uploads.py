"""Uploads in parts: each goes on where the last one was cut."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from copilot_agent.blocks import Incoming, hash_file, store_body
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.files.blobs import BlobStore
from job_manager_adapter.files.durable import private_directory

_DAY = 86400.0
_MOST_HASHERS = 4096
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Target:
    """A file on its way in. `key` says for whom and under which name it comes."""

    key: str
    sha256: str
    length: int


class OffsetMismatchError(CopilotError):
    """The upload must go on at `offset`."""

    code = ErrorCode.OFFSET_MISMATCH

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"{offset} bytes of this file are here", remedy=f"go on with Upload-Offset: {offset}"
        )
        self.offset = offset


@dataclass
class _Part:
    """A half file, its length so far and the hash of that."""

    path: Path
    offset: int
    hasher: "hashlib._Hash"


class Uploads:
    """Keeps half files under `root/parts` and hands whole ones to the blob store.

    One upload per key runs at a time; a newer one ends the older, whose connection is
    most likely dead.
    """

    def __init__(self, root: Path, blobs: BlobStore, floor_bytes: int) -> None:
        self._root = private_directory(root / "parts")
        self._blobs = blobs
        self._floor = floor_bytes
        self._parts: dict[str, _Part] = {}
        self._active: dict[str, asyncio.Task[object]] = {}

    def offset(self, key: str) -> int:
        """Bytes of the file that are here."""
        with contextlib.suppress(FileNotFoundError):
            return self._path(key).stat().st_size
        return 0

    async def receive(self, target: Target, offset: int, body: AsyncIterator[bytes]) -> int:
        """Stores `body` from `offset` on; returns how many bytes are here now.

        Once that is `target.length` the whole file is in the blob store.

        Raises `OffsetMismatchError`, or `CopilotError` with hash_mismatch, too_large or no_space.
        """
        async with self._alone(target.key):
            part = await _to_the_end(self._open, target)
            if offset != part.offset:
                raise OffsetMismatchError(part.offset)
            file = Incoming(part.path, offset, target.length, part.hasher)
            try:
                await self._take(target, part, file, body)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _no_space() from error
                raise
            finally:
                file.close()
            return part.offset

    async def _take(
        self, target: Target, part: _Part, file: Incoming, body: AsyncIterator[bytes]
    ) -> None:
        def store(block: memoryview) -> None:
            self._check_room(target, part, len(block))
            file.append(block)
            part.offset, part.hasher = file.offset, file.digest

        await store_body(body, part.offset, store, (ConnectionError, TimeoutError))
        if part.offset == target.length:
            await _to_the_end(self._finish, target, part, file)

    def clean(self, days: float = 1.0) -> int:
        """Drops half files untouched for `days`; returns how many."""
        deadline, count = time.time() - days * _DAY, 0
        for path in self._root.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < deadline:
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)
                    count += 1
        return count

    @contextlib.asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        while older := self._active.get(key):
            older.cancel()
            await asyncio.wait([older])
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - always within a task
        self._active[key] = task
        try:
            yield
        finally:
            del self._active[key]

    def _open(self, target: Target) -> _Part:
        path, about = self._path(target.key), {"sha256": target.sha256, "length": target.length}
        note = path.with_suffix(".json")
        if not path.exists() or _read_note(note) != about:
            self._drop(target.key)
            note.write_text(json.dumps(about))
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        part = self._parts.get(target.key)
        if part is None or part.offset != path.stat().st_size:
            part = _Part(path, path.stat().st_size, hash_file(path))
        if len(self._parts) >= _MOST_HASHERS:
            self._parts.pop(next(iter(self._parts)))
        self._parts[target.key] = part
        return part

    def _check_room(self, target: Target, part: _Part, more: int) -> None:
        if part.offset + more > target.length:
            raise CopilotError(
                f"more bytes came than the {target.length} announced",
                remedy="send exactly Upload-Length bytes in all",
                code=ErrorCode.TOO_LARGE,
            )
        if self._blobs.free_bytes() - more < self._floor:
            raise _no_space()

    def _finish(self, target: Target, part: _Part, file: Incoming) -> None:
        if part.hasher.hexdigest() != target.sha256:
            self._drop(target.key)
            raise CopilotError(
                "the file's SHA-256 is not the one announced",
                remedy="start over at Upload-Offset: 0",
                code=ErrorCode.HASH_MISMATCH,
            )
        try:
            file.sync()
        except OSError:
            self._drop(target.key)  # nobody knows what is on the disk then
            raise
        self._blobs.adopt(part.path, target.sha256)
        self._drop(target.key)

    def _drop(self, key: str) -> None:
        self._parts.pop(key, None)
        self._path(key).unlink(missing_ok=True)
        self._path(key).with_suffix(".json").unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / f"{hashlib.sha256(key.encode()).hexdigest()}.part"


def _no_space() -> CopilotError:
    return CopilotError(
        "the manager's disk is full",
        remedy="try again later; the operator must free disk space",
        code=ErrorCode.NO_SPACE,
    )


def _read_note(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


async def _to_the_end(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs `function` in a thread, and to its end even when cancelled meanwhile."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
