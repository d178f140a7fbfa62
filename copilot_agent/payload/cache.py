"""Staged inputs by content: each file is fetched once per pilot, each archive unpacked once.

files/<sha256>     complete and checked, read-only
trees/<sha256>/    an unpacked archive, read-only
partial/<sha256>   what has come so far; resumed later
"""

import asyncio
import functools
import logging
import os
import random
import tempfile
from asyncio import Lock
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from copilot_agent.blocks import hash_file
from copilot_agent.payload.archive import ArchiveError, Caps, unpack
from copilot_agent.payload.threads import in_thread
from copilot_agent.payload.tree import remove_tree
from copilot_agent.protocol.frames import InputLink
from copilot_agent.transports.base import FileMoveError, FileMover, Moved

log = logging.getLogger(__name__)

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries of one download; each is shortened by chance to no less than half."""
_EVICTED = "evicted-"
_SPARE_BYTES = 16 << 20
"""Left free on the disk by a download."""

Sleep = Callable[[float], Awaitable[None]]


class StageInError(Exception):
    """An input cannot be had. `retryable`: another try may help, with fresh links if they expired.

    The message begins with the input's name.
    """

    def __init__(self, message: str, *, retryable: bool, link_expired: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.link_expired = link_expired


class Cache:
    def __init__(
        self,
        root: Path,
        mover: FileMover,
        *,
        gid: int | None,
        max_bytes: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`gid` is the payloads' group: they can open what they know the hash of, not list it."""
        self._files, self._trees = root / "files", root / "trees"
        self._partial = root / "partial"
        self._mover = mover
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._sizes: dict[Path, int] = {}
        """Entries of the cache and their bytes, the least recently used first."""
        self._users: dict[Path, set[Path]] = {}
        """Directories of attempts whose inputs are links to an entry."""
        for folder in (root, self._files, self._trees, self._partial):
            folder.mkdir(parents=True, exist_ok=True)
            _open_to(folder, None if folder == self._partial else gid)
        self._load()

    async def file(self, link: InputLink, user: Path, moved: Moved | None = None) -> Path:
        """The file, fetched if need be; it stays as long as the directory `user` is there."""
        lock = self._locks.setdefault(link.sha256, Lock())
        async with lock:
            return await self._file(link, user, moved)

    async def tree(
        self, link: InputLink, user: Path, caps: Caps, moved: Moved | None = None
    ) -> Path:
        """The unpacked archive."""
        lock = self._locks.setdefault(link.sha256, Lock())
        async with lock:
            path = self._trees / link.sha256
            if path not in self._sizes:
                archive = await self._file(link, user, moved)
                await self._make_room(link.name, caps.allowed(link.size), strict=False)
                size = await self._unpack(link, archive, path, caps)
                self._sizes[path] = size
                self._forget(archive, user)
            self._use(path, user)
            return path

    async def _file(self, link: InputLink, user: Path, moved: Moved | None) -> Path:
        path = self._files / link.sha256
        if path not in self._sizes:
            await self._make_room(link.name, link.size, strict=True)
            partial = self._partial / link.sha256
            await self._fetch(link, partial, moved)
            partial.chmod(0o444)
            partial.rename(path)
            self._sizes[path] = link.size
        self._use(path, user)
        return path

    async def _fetch(self, link: InputLink, partial: Path, moved: Moved | None) -> None:
        """Downloads, checks, and starts over once if the hash is wrong."""
        for last in (False, True):
            found = await self._download(link, partial, moved)
            if found == link.sha256:
                return
            partial.unlink()
            if last:
                message = f"{link.name}: has the hash {found}, but {link.sha256} was declared"
                raise StageInError(message, retryable=False)

    async def _download(self, link: InputLink, partial: Path, moved: Moved | None) -> str:
        """Returns the SHA-256 of what came."""
        for pause in (*RETRY_PAUSES, None):
            try:
                return await self._download_once(link, partial, moved)
            except FileMoveError as error:
                if pause is None or error.link_expired or not error.retryable:
                    raise StageInError(
                        f"{link.name}: {error.message}",
                        retryable=error.retryable,
                        link_expired=error.link_expired,
                    ) from error
                log.info("%s: %s; trying again", link.name, error.message)
                await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    async def _download_once(self, link: InputLink, partial: Path, moved: Moved | None) -> str:
        offset = partial.stat().st_size if partial.exists() else 0
        if offset > link.size:
            partial.unlink()
            offset = 0
        if offset == link.size:
            partial.touch(mode=0o600)
            return (await in_thread(functools.partial(hash_file, partial))).hexdigest()
        found = await self._mover.download(
            link.url, partial, offset=offset, max_bytes=link.size, progress=moved
        )
        size = partial.stat().st_size if partial.exists() else 0
        if size < link.size:
            raise FileMoveError(f"only {size} of {link.size} bytes came", retryable=True)
        return found

    async def _unpack(self, link: InputLink, archive: Path, path: Path, caps: Caps) -> int:
        room = Path(tempfile.mkdtemp(prefix="unpacking-", dir=self._trees))
        try:
            size = await in_thread(lambda check: unpack(archive, room, caps, check=check))
            room.rename(path)
        except ArchiveError as error:
            raise StageInError(f"{link.name}: {error}", retryable=False) from error
        finally:
            if room.exists():
                await asyncio.to_thread(remove_tree, room)
        path.chmod(0o555)
        return size

    def _use(self, path: Path, user: Path) -> None:
        self._sizes[path] = self._sizes.pop(path)
        self._users.setdefault(path, set()).add(user)

    def _forget(self, archive: Path, user: Path) -> None:
        """An archive that nobody wants as a file has done its service."""
        users = self._users.get(archive, set())
        users.discard(user)
        if not users:
            remove_tree(self._take_out(archive))

    def _take_out(self, path: Path) -> Path:
        """At once, so that nobody finds half an entry; what is left to do is to remove the rest."""
        del self._sizes[path]
        self._users.pop(path, None)
        rest = Path(tempfile.mkdtemp(prefix=_EVICTED, dir=self._partial))
        path.rename(rest / path.name)
        return rest

    async def _make_room(self, name: str, size: int, *, strict: bool) -> None:
        """Evicts the least recently used entries that no attempt uses.

        `strict`: `size` is certain, so what cannot fit on the disk is refused at once.
        """
        for path in list(self._sizes):
            if path not in self._sizes:  # another attempt made room meanwhile
                continue
            fits = sum(self._sizes.values()) + size <= self._max_bytes
            if fits and self._free_bytes() >= size + _SPARE_BYTES:
                return
            if not self._in_use(path):
                await asyncio.to_thread(remove_tree, self._take_out(path))
        if strict and self._free_bytes() < size + _SPARE_BYTES:
            message = f"{name}: no space for {size} bytes on this pilot's disk"
            raise StageInError(message, retryable=True)

    def _in_use(self, path: Path) -> bool:
        users = {user for user in self._users.get(path, ()) if user.exists()}
        self._users[path] = users
        return bool(users)

    def _free_bytes(self) -> int:
        status = os.statvfs(self._files)
        return status.f_bavail * status.f_frsize

    def _load(self) -> None:
        """Takes over what an earlier agent left, oldest first, without what was half done."""
        for path in self._trees.iterdir():
            if path.name.startswith("unpacking-"):
                remove_tree(path)
        for path in self._partial.glob(f"{_EVICTED}*"):
            remove_tree(path)
        entries = [*self._files.iterdir(), *self._trees.iterdir()]
        for path in sorted(entries, key=lambda each: each.stat().st_mtime):
            self._sizes[path] = sum(each.lstat().st_size for each in _files_of(path))


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (each for each in path.rglob("*") if each.is_file())


def _open_to(folder: Path, gid: int | None) -> None:
    """Lets a group pass through a directory of ours, not look into it."""
    if gid is None:
        folder.chmod(0o700)
    else:
        os.chown(folder, -1, gid)
        folder.chmod(0o710)
