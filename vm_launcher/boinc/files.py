"""Files of a slot: written whole or not at all, read only up to a bound."""

import os
import stat
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """On the disk when it returns. Readable for the client, which may be another user."""
    part = path.with_name(path.name + ".part")
    write_file(part, data)
    part.replace(path)
    sync_directory(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """On the disk when it returns; a power cut before that can leave a part of it."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """So that a power cut does not undo a name's change."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, most: int) -> bytes | None:
    """None if it is no regular file or larger than `most`; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(most + 1)
    return data if len(data) <= most else None
