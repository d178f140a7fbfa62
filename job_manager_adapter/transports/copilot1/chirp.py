"""The root directory of the Chirp server through which original agents move files.

Strangers write in it, where `.__acl` (the manual of cctools' Chirp, "Security") lets them: in one
directory an attempt, under a name that nobody can guess. Nothing here follows a link.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from copilot_agent.payload.archive import ArchiveError
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.core.copilot1.names import attempt_named
from job_manager_adapter.core.leases import Key

ACL = ".__acl"
READ, WRITE = "rl", "w"
"""All that chirp_get, which looks at a file before it reads it, and chirp_put need."""


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
"""Not there, or a link, or a socket; anything else is our own trouble."""


class ChirpRoot:
    def __init__(self, root: Path, subject: str) -> None:
        """`subject` is whom agents are to the Chirp server, such as `address:*`."""
        self._root = root
        self._subject = subject
        self._owner: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Raises CopilotError where this cannot be the root of the Chirp server."""
        try:
            status = self._root.lstat()
        except OSError as error:
            raise _unfit(self._root, "is not there") from error
        if not stat.S_ISDIR(status.st_mode):
            raise _unfit(self._root, "is no directory")
        if os.geteuid() == 0:
            self._owner = (status.st_uid, status.st_gid)
        elif status.st_uid != os.geteuid():
            raise _unfit(self._root, "belongs to another user")
        acl = self._root / ACL
        if not acl.exists():  # else the server would write one that lets its user in
            self._write(acl, b"")

    def export(self, name: str, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
        """Makes the directory `name` with these files, which agents may read and nothing else."""
        self.remove(name)
        directory = self._make(name)
        for local, source in files.items():
            self._place(source, directory / local)
        for local, text in texts.items():
            self._write(directory / local, text.encode())
        self._allow(directory, READ)

    def receive(self, name: str) -> None:
        """Makes the directory `name`, where agents may write and nothing else."""
        if not (self._root / name / ACL).exists():
            self.remove(name)
            self._allow(self._make(name), WRITE)

    @contextmanager
    def archive(self, name: str) -> Iterator[BinaryIO]:
        """`name/name.tgz`. Raises ArchiveError for what is no regular file of its own."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            directory = os.open(self._root / name, flags | os.O_DIRECTORY)
            try:
                handle = os.open(f"{name}.tgz", flags, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            raise ArchiveError(f"it is not there: {error.strerror}") from error
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(handle)
            raise ArchiveError("it is no ordinary file")
        with os.fdopen(handle, "rb") as file:
            yield file

    def remove(self, name: str) -> None:
        shutil.rmtree(self._root / name, ignore_errors=True)

    def leftovers(self, seconds: float) -> Iterator[tuple[str, Key]]:
        """Directories of ours that are older than that, and whose they are."""
        before = time.time() - seconds
        for entry in os.scandir(self._root):
            key = attempt_named(entry.name)
            with suppress(FileNotFoundError):
                if key and entry.stat(follow_symlinks=False).st_mtime < before:
                    yield entry.name, key

    def _make(self, name: str) -> Path:
        directory = self._root / name
        directory.mkdir(mode=0o700)
        self._give(directory)
        return directory

    def _allow(self, directory: Path, right: str) -> None:
        self._write(directory / ACL, f"{self._subject} {right}\n".encode())

    def _place(self, source: Path, target: Path) -> None:
        """A link where source and target are of one user and on one disk, else a copy."""
        if self._owner is None or source.stat().st_uid == self._owner[0]:
            with suppress(OSError):
                target.hardlink_to(source)
                return
        shutil.copyfile(source, target)
        self._give(target)

    def _write(self, path: Path, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
        self._give(path)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner, follow_symlinks=False)


def _unfit(root: Path, why: str) -> CopilotError:
    return CopilotError(
        f"copilot1.chirp_root: {root} {why}",
        remedy="make an empty directory that the manager's user owns, and start chirp_server as"
        " that user with it (-r); see docs/copilot1.md",
        code=ErrorCode.INVALID_REQUEST,
    )
