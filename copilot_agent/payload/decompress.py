"""Reads a compressed tar in small pieces, so that no bomb ever lies in memory."""

import bz2
import gzip
import lzma
from typing import IO, Protocol

_PIECE = 1 << 16
_LZMA_MEMORY = 128 << 20


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Stream:
    """A reader that gives exact amounts."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes. Raises EOFError where the compression ends too early."""
        try:
            return self._reader.read(size)
        except (OSError, lzma.LZMAError) as error:  # gzip and bz2 raise OSError for damage
            raise EOFError(str(error)) from error

    def read_exactly(self, size: int) -> bytes:
        """Fewer only at the end."""
        pieces = []
        while size > 0 and (piece := self.read(min(size, _PIECE))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size > 0 and (piece := self.read(min(size, _PIECE))):
            size -= len(piece)


class _Xz:
    """Like lzma.LZMAFile, with a bound on the memory that an archive can make it use."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        while not self._lzma.eof:
            fresh = self._file.read(_PIECE) if self._lzma.needs_input else b""
            if self._lzma.needs_input and not fresh:
                raise EOFError("the compressed data end too early")
            if piece := self._lzma.decompress(fresh, size):
                return piece
        return b""


def open_tar(file: IO[bytes]) -> Stream:
    """A plain, gzip, bzip2 or xz file, by its first bytes. Raises NotImplementedError."""
    file.seek(0)
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return Stream(gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return Stream(bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\x00":
        return Stream(_Xz(file))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise NotImplementedError("zstd is not supported: use tar.gz or tar.xz")
    return Stream(file)
