"""Packs what a payload has left into the one archive that original managers expect."""

import io
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from copilot_agent.payload.threads import Check
from copilot_agent.payload.watchdog import MAX_DEPTH, MAX_FILES

LEVEL = 3
"""Of gzip: half the time of its default for nearly the same size."""


class Packing:
    """Into a new file. Its methods block; they raise OSError for our disk only."""

    def __init__(self, target: Path, max_bytes: int, check: Check = lambda: None) -> None:
        """At most `max_bytes` of content; `check` is called often and may raise."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(target, flags, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz", compresslevel=LEVEL)  # noqa: SIM115
        self._left = max_bytes
        self._check = check
        self._left_out = 0
        self._count = 0

    def close(self) -> None:
        self._tar.close()
        self._file.close()

    @property
    def lacking(self) -> str:
        """What is not in it, in words."""
        if not self._left_out:
            return ""
        return f"{self._left_out} files could not be read or did not fit into the outputs' archive"

    def text(self, name: str, text: str) -> None:
        data = text.encode()
        entry = _entry(name, tarfile.REGTYPE, 0o644, time.time(), len(data))
        self._tar.addfile(entry, io.BytesIO(data))

    def log(self, name: str, path: Path) -> None:
        """A file of the agent's own; empty where there is none."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self.text(name, "")
        else:
            self._regular(name, handle)

    def tree(self, directory: Path, skip: frozenset[str]) -> None:
        """Directories, symbolic links as such, and regular files that are the payload's own.

        Call it when the payload has ended: nothing in there moves any more.
        """
        owner = directory.stat().st_uid
        for path, folder, name, status in _walk(directory, skip, self._unreadable):
            self._check()
            if self._count >= MAX_FILES:
                self._left_out += 1
            elif stat.S_ISDIR(status.st_mode):
                self._tar.addfile(_entry(path, tarfile.DIRTYPE, 0o755, status.st_mtime))
            elif stat.S_ISLNK(status.st_mode):
                link = _entry(path, tarfile.SYMTYPE, 0o777, status.st_mtime)
                link.linkname = os.readlink(name, dir_fd=folder)
                self._tar.addfile(link)
            elif stat.S_ISREG(status.st_mode) and status.st_uid == owner:
                self._own_file(path, folder, name)
            self._count += 1

    def _unreadable(self, _: OSError) -> None:
        self._left_out += 1

    def _own_file(self, path: str, folder: int, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, dir_fd=folder)
        except PermissionError:
            self._left_out += 1
        else:
            self._regular(path, handle)

    def _regular(self, path: str, handle: int) -> None:
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if status.st_size > self._left:
                self._left_out += 1
                return
            self._left -= status.st_size
            mode = 0o755 if status.st_mode & 0o100 else 0o644
            entry = _entry(path, tarfile.REGTYPE, mode, status.st_mtime, status.st_size)
            self._tar.addfile(entry, _Read(file, self._check))


class _Read:
    """Lets the packing of a long file be interrupted."""

    def __init__(self, file: io.BufferedReader, check: Check) -> None:
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)


def _entry(name: str, kind: bytes, mode: int, changed: float, size: int = 0) -> tarfile.TarInfo:
    """Says nothing of this host's users. `changed` may be nonsense, as a payload can set it."""
    entry = tarfile.TarInfo(f"./{name}")
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.mtime = min(max(0, int(changed)), 1 << 33)
    return entry


def _walk(
    directory: Path, skip: frozenset[str], unreadable: Callable[[OSError], None]
) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """Path, open folder, name and status of everything; names of `skip` at the top are left out."""
    walk = os.fwalk(directory, follow_symlinks=False, onerror=unreadable)
    for here, folders, files, handle in walk:
        inside = os.path.relpath(here, directory)
        top = inside == "."
        folders[:] = sorted(name for name in folders if not (top and name in skip))
        for name in (*folders, *sorted(files)):
            if not (top and name in skip):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                yield name if top else f"{inside}/{name}", handle, name, status
        if not top and inside.count("/") + 2 >= MAX_DEPTH:
            folders.clear()
