"""Files that are whole or absent after a power cut."""

import contextlib
import os
import secrets
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Makes renames and unlinks in `directory` last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` at `path` in one step; an older file there is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Makes `path` and what is missing above it, so that a power cut does not undo it."""
    missing = [step for step in (path, *path.parents) if not step.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for step in missing:
        sync_directory(step.parent)


def private_directory(path: Path) -> Path:
    """`path` as a directory that only its owner may enter."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def key_file(path: Path, length: int = 32) -> bytes:
    """The secret key kept at `path` (mode 0600), made on first use."""
    private_directory(path.parent)
    return fresh_file(path, os.urandom(length))


def fresh_file(path: Path, content: bytes) -> bytes:
    """What is at `path`; `content` if there was nothing. Of several at once one is first."""
    if not path.exists():
        mine = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
        write_file(mine, content)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(mine)
        mine.unlink()
        sync_directory(path.parent)
    return path.read_bytes()
