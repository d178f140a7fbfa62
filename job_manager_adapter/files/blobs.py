"""Finished files, each under its SHA-256."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from job_manager_adapter.files.durable import make_directory, private_directory, sync_directory

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = 86400.0


class BlobStore:
    """`root/blobs/ab/cd/<sha256>`, and one empty mark per owner that uploaded a file.

    A blob's modification time is when it was last wanted; clean-up goes by it.
    """

    def __init__(self, root: Path) -> None:
        self._blobs = private_directory(root / "blobs")
        self._owners = private_directory(root / "owners")

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be. Raises `ValueError` for anything but a hash."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError("not a SHA-256")
        return self._blobs / sha256[:2] / sha256[2:4] / sha256

    def size(self, sha256: str) -> int | None:
        """Size in bytes, `None` if the blob is not here."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def touch(self, sha256: str) -> None:
        """Keeps the blob from being cleaned up for another while."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(sha256))

    def adopt(self, part: Path, sha256: str) -> None:
        """Moves a synced file, whose hash has been checked, to its place."""
        target = self.path(sha256)
        make_directory(target.parent)
        part.replace(target)
        os.utime(target)
        sync_directory(target.parent)

    def mark(self, owner: str, sha256: str) -> None:
        """Remembers that `owner` (an experiment's name, or "") brought this file."""
        path = self._mark_path(owner, sha256)
        make_directory(path.parent)
        path.touch(mode=0o600)
        sync_directory(path.parent)

    def owned(self, owner: str, sha256: str) -> bool:
        return self._mark_path(owner, sha256).exists()

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._blobs).free

    def stale(self, days: float) -> set[str]:
        """Hashes of blobs that nobody wanted for `days`."""
        deadline, found = time.time() - days * _DAY, set()
        for path in self._all():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < deadline:
                    found.add(path.name)
        return found

    def remove(self, sha256: str) -> int:
        """Removes a blob and its marks; returns the bytes set free."""
        size = self.size(sha256) or 0
        self.path(sha256).unlink(missing_ok=True)
        for mark in self._owners.glob(f"*/{sha256}"):
            mark.unlink(missing_ok=True)
        return size

    def _all(self) -> Iterator[Path]:
        return (path for path in self._blobs.glob("??/??/*") if _SHA256.fullmatch(path.name))

    def _mark_path(self, owner: str, sha256: str) -> Path:
        return self._owners / (f"x-{owner}" if owner else "operators") / self.path(sha256).name
