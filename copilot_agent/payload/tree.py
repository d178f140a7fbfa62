"""Measures, reads and removes a directory that belongs to a payload: nothing in it is trusted."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from copilot_agent.payload.watchdog import MAX_DEPTH, MAX_FILES, Disk

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 512
"""Unit of st_blocks."""


class Scan:
    """Disk use of a directory, found in slices of time so that nobody else has to wait."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._walk: Iterator[Disk] | None = None
        self._seen = Disk()
        self.latest = Disk()
        """The larger of the last complete scan and what the running one has found so far."""

    def advance(self, seconds: float) -> Disk:
        """Goes on for about so long; starts anew when a scan is complete."""
        deadline = time.monotonic() + seconds
        if self._walk is None:
            self._walk, self._seen = _walk(self._directory), Disk()
        for seen in self._walk:
            self._seen = seen
            if seen.bytes > self.latest.bytes or seen.files > MAX_FILES or seen.too_deep:
                self.latest = seen
            if time.monotonic() > deadline:
                return self.latest
        self._walk = None
        self.latest = self._seen
        return self.latest

    def finish(self, seconds: float) -> Disk:
        """A last scan from the start, cut off after so long."""
        self._walk = None
        self.advance(seconds)
        self._walk = None
        return self.latest


def _walk(directory: Path) -> Iterator[Disk]:
    """Yields the sum so far, again and again; the last is the whole."""
    total = files = 0
    too_deep = False
    stack: list[_Open] = []
    counted: set[int] = set()
    try:
        with suppress(OSError):  # the payload may have made it unreadable or removed it
            _enter(stack, directory, None)
        while stack:
            handle, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                _leave(stack)
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink == 1 or status.st_ino not in counted:
                    total += status.st_blocks * _BLOCK
                if status.st_nlink > 1:
                    counted.add(status.st_ino)
                if stat.S_ISDIR(status.st_mode):
                    too_deep = too_deep or len(stack) >= MAX_DEPTH
                    if not too_deep:
                        _enter(stack, entry.name, handle)
            files += 1
            yield Disk(bytes=total, files=files, too_deep=too_deep)
            if files > MAX_FILES:
                break
    finally:
        while stack:
            _leave(stack)
    yield Disk(bytes=total, files=files, too_deep=too_deep)


_Open = tuple[int, "os._ScandirIterator[str]"]


def _enter(stack: list[_Open], name: str | Path, parent: int | None) -> None:
    handle = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        stack.append((handle, os.scandir(handle)))
    except OSError:
        os.close(handle)
        raise


def _leave(stack: list[_Open]) -> None:
    handle, entries = stack.pop()
    entries.close()
    os.close(handle)


def open_beneath(directory: Path, name: str) -> int:
    """Opens a regular file of a payload for reading, by a relative path without any link in it.

    Raises FileNotFoundError, or OSError with a text that says what it is instead of a file.
    """
    parts = name.split("/")
    folder = os.open(directory, _DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = deeper
        kind = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind):
            raise OSError(f"is {_KINDS.get(stat.S_IFMT(kind), 'something else')}, not a file")
        handle = os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("is not a file")
    return handle


_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def hand_over(directory: Path | str, uid: int, gid: int) -> None:
    """Gives a fresh directory, and the directories and files in it, to a payload's user."""
    os.chown(directory, uid, gid)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                hand_over(entry.path, uid, gid)
            else:
                os.chown(entry.path, uid, gid, follow_symlinks=False)


def remove_bare(directory: Path, known: str) -> bool:
    """Removes a directory with nothing in it but the empty directory `known`, if it is one."""
    try:
        os.rmdir(f"{directory}/{known}")  # noqa: PTH106 - a plain string is quicker
        directory.rmdir()
    except OSError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Removes a directory whatever a payload built in it: nested without end, or unreadable.

    Raises OSError.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()
        return
    if os.geteuid() != 0:
        path.chmod(0o700)
    top = os.open(path, _DIRECTORY)
    try:
        while _empty(top, top, 0):
            pass
    finally:
        os.close(top)
    path.rmdir()


def _empty(top: int, folder: int, depth: int) -> bool:
    """Empties a directory. What lies too deep is moved up to the top; returns whether any did."""
    moved = False
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=folder)
            continue
        if os.geteuid() != 0:
            os.chmod(name, 0o700, dir_fd=folder)
        if depth >= MAX_DEPTH:
            _move_up(top, folder, name)
            moved = True
        else:
            child = os.open(name, _DIRECTORY, dir_fd=folder)
            try:
                moved = _empty(top, child, depth + 1) or moved
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=folder)
    return moved


def _move_up(top: int, folder: int, name: str) -> None:
    """To a name that is free, or that of an empty directory, which it then replaces."""
    for number in count():
        try:
            os.rename(name, f"removed-{number}", src_dir_fd=folder, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return
