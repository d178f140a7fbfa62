"""Measures, reads and removes a directory that belongs to a payload: nothing in it is trusted."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
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
    stack: list[tuple[int, Iterator[os.DirEntry[str]]]] = []
    counted: set[int] = set()
    try:
        with suppress(OSError):  # the payload may have made it unreadable or removed it
            _enter(stack, directory, None)
        while stack:
            handle, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(stack.pop()[0])
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
        for handle, _ in stack:
            os.close(handle)
    yield Disk(bytes=total, files=files, too_deep=too_deep)


def _enter(
    stack: list[tuple[int, Iterator[os.DirEntry[str]]]], name: str | Path, parent: int | None
) -> None:
    handle = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        stack.append((handle, os.scandir(handle)))
    except OSError:
        os.close(handle)
        raise


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


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """Gives a fresh directory, and the directories and files in it, to a payload's user."""
    os.chown(directory, uid, gid)
    for folder, folders, files in os.walk(directory):
        for name in folders + files:
            os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)


def remove_tree(path: Path) -> None:
    """Removes a directory whatever a payload built in it: nested without end, or unreadable.

    Directories are moved up before they are emptied, so that depth does not matter.
    Raises OSError.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()
        return
    _make_writable(path)
    number = 0
    while folders := _clear(path):
        for name in folders:
            folder = path / name
            _make_writable(folder)
            for child in _clear(folder):
                number = _move_up(path, folder / child, number)
            folder.rmdir()
    path.rmdir()


def _move_up(top: Path, child: Path, number: int) -> int:
    """Gives `child` a free name directly below `top`; returns the number used."""
    _make_writable(child)
    while True:
        number += 1
        target = top / f"removed-{number}"
        if not os.path.lexists(target):
            child.rename(target)
            return number


def _clear(folder: Path) -> list[str]:
    """Unlinks all that is not a directory; returns the names of the directories."""
    with os.scandir(folder) as entries:
        found = list(entries)
    folders = []
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            Path(entry.path).unlink()
    return folders


def _make_writable(folder: Path) -> None:
    if os.geteuid() != 0:
        folder.chmod(0o700)
