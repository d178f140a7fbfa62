"""A log that cannot fill the disk: one file and its predecessor, each of bounded size."""

from pathlib import Path


class BoundedLog:
    def __init__(self, path: Path, limit_bytes: int = 512 * 1024) -> None:
        self._path = path
        self._limit = limit_bytes
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > self._limit:
            self._file.close()
            self._path.replace(self._path.with_suffix(".old" + self._path.suffix))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(data[-self._limit :])

    def close(self) -> None:
        self._file.close()
