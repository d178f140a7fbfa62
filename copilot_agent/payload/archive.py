"""Unpacks archives that nobody trusts: regular files and directories, and nothing else.

Own code because Debian 12's tarfile has no safe filter, and because no library bounds what it
reads on the way. Formats: zip by the standard library's reader after a look at its end record
(APPNOTE.TXT 4.3.16); tar headers as in POSIX pax(1) and GNU tar's long names.
"""

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from copilot_agent.payload.decompress import Stream, open_tar

_PIECE = 1 << 18
_BLOCK = 512
_MAX_NAME = 1024
_MAX_PART_BYTES = 255
_MAX_DEPTH = 32
_MAX_EXTENSION_BYTES = 1 << 16
"""Of a pax or long-name record."""
_HEADERS_PER_ENTRY = 4
_MAX_DIRECTORY_BYTES = 32 << 20
"""Of a zip's central directory, which is read into memory."""


class ArchiveError(Exception):
    """The archive is refused; nothing of it is left."""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What an archive may unpack to at most."""

    bytes: int
    entries: int = 100_000
    ratio: int = 200
    """Unpacked size over packed size, for archives that unpack to more than `free_bytes`."""
    free_bytes: int = 10 << 20

    def allowed(self, packed: int) -> int:
        return min(self.bytes, max(self.free_bytes, packed * self.ratio))


class Source(Protocol):
    """Reads at most so many bytes; empty at the end."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass
class _Tree:
    """The directory that is being filled. Nobody else can write in it, and it has no links."""

    root: Path
    caps: Caps
    allowed: int
    check: Callable[[], None]
    wanted: frozenset[str] | None = None
    """Files to be written; everything else is read over. None: everything, and nothing unusual."""
    written: int = 0
    entries: int = 0
    directories: set[str] = field(default_factory=set)

    def directory(self, name: str) -> None:
        self._count(name)
        self._make(name)

    def file(self, name: str, source: Source, size: int, *, executable: bool) -> None:
        """Writes exactly `size` bytes."""
        self._count(name)
        if "/" in name:
            self._make(name.rpartition("/")[0])
        self.refuse_size(size)
        handle = self._create(name)
        try:
            self._fill(handle, name, source, size)
            os.fchmod(handle, 0o555 if executable else 0o444)
        finally:
            os.close(handle)

    def refuse_size(self, size: int) -> None:
        if self.written + size > self.allowed:
            raise ArchiveError(
                f"unpacks to more than {self.allowed} bytes ({self.caps.bytes} are allowed, and at "
                f"most {self.caps.ratio} times the packed size); raise requirements.disk_mib if "
                "the archive is meant to be so large"
            )

    def _create(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.root / name, flags, 0o600)
        except FileExistsError:
            raise ArchiveError(f"{name!r} is in it twice") from None

    def _fill(self, handle: int, name: str, source: Source, size: int) -> None:
        left = size
        while left > 0:
            self.check()
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise ArchiveError(f"{name!r} ends too early")
            _write_all(handle, piece)
            left -= len(piece)
        self.written += size

    def _count(self, name: str) -> None:
        self.check()
        self.entries += 1
        if self.entries > self.caps.entries or len(self.directories) > self.caps.entries:
            raise ArchiveError(f"has more than {self.caps.entries} entries, from {name!r} on")

    def _make(self, name: str) -> None:
        if name in self.directories:
            return
        path = ""
        for part in name.split("/"):
            path = f"{path}/{part}" if path else part
            if path not in self.directories:
                try:
                    (self.root / path).mkdir(mode=0o700)
                except FileExistsError:
                    raise ArchiveError(f"{path!r} is both a file and a directory") from None
                self.directories.add(path)

    def seal(self) -> None:
        """Makes the directories read-only, the deepest first."""
        for name in sorted(self.directories, key=len, reverse=True):
            (self.root / name).chmod(0o555)


def _write_all(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def unpack(
    archive: Path,
    target: Path,
    caps: Caps,
    *,
    check: Callable[[], None] = lambda: None,
    wanted: frozenset[str] | None = None,
) -> int:
    """Unpacks into the empty directory `target`, read-only; returns the bytes of its files.

    Of a tar only the files `wanted`, if that is given; links and devices beside them are no fault
    then. `check` is called often and may raise to stop. Raises ArchiveError; the caller removes
    what was unpacked until then.
    """
    packed = archive.stat().st_size
    tree = _Tree(root=target, caps=caps, allowed=caps.allowed(packed), check=check, wanted=wanted)
    with archive.open("rb") as file:
        try:
            if file.read(2) == b"PK" and wanted is None:
                _unpack_zip(file, tree)
            else:
                _unpack_tar(open_tar(file), tree)
        except UnicodeDecodeError:
            raise ArchiveError("a name in it is not UTF-8") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ArchiveError(f"is damaged or of an unknown kind: {error}") from error
    tree.seal()
    return tree.written


def safe_name(name: str) -> str:
    """The name without `.` parts and slash at the end; empty for the root itself.

    Raises ArchiveError for names that are absolute, lead upwards, or cannot be meant.
    """
    if len(name) > _MAX_NAME:
        raise ArchiveError(f"the name {name[:40]!r}… is too long")
    if name.startswith("/") or "\\" in name or not name.isprintable():
        raise ArchiveError(f"the name {name!r} is absolute or has forbidden characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError(f"the name {name!r} leads out of the archive")
    if len(parts) > _MAX_DEPTH or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise ArchiveError(f"the name {name[:40]!r}… is too deep or too long")
    return "/".join(parts)


def _unpack_zip(file: IO[bytes], tree: _Tree) -> None:
    _look_at_zip_end(file, tree.caps)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _unpack_zip_entry(archive, info, tree)


def _look_at_zip_end(file: IO[bytes], caps: Caps) -> None:
    """Refuses archives whose table of contents alone would fill the memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22 - 20))
    end = file.read()
    start = end.rfind(b"PK\x05\x06")
    if start < 0 or len(end) - start < 22:
        raise ArchiveError("is damaged: a zip without an end record")
    entries, directory_bytes = struct.unpack_from("<HI", end, start + 10)
    zip64 = b"PK\x06\x07" in end[max(0, start - 20) : start]  # believed even if not needed
    if zip64 or entries == 0xFFFF or directory_bytes == 0xFFFFFFFF:
        raise ArchiveError("has more than 65,534 entries or 4 GiB; split it or use a tar")
    if entries > caps.entries or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ArchiveError(f"has more than {caps.entries} entries")


def _unpack_zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, tree: _Tree) -> None:
    name = safe_name(info.filename)
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{name!r} is neither a regular file nor a directory")
    if info.flag_bits & 1:
        raise ArchiveError(f"{name!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name!r} is compressed in another way than deflate")
    if info.is_dir() or kind == stat.S_IFDIR:
        if name:
            tree.directory(name)
        return
    if not name:
        raise ArchiveError("an entry has no name")
    with archive.open(info) as source:
        tree.file(name, source, info.file_size, executable=bool(mode & 0o100))
        if source.read(1):
            raise ArchiveError(f"{name!r} is longer than it says")


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: bytes
    executable: bool


_FILES = (b"0", b"\0", b"7")
_DIRECTORY = b"5"
_WHAT = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link",
    b"S": "a sparse file",
}


def _unpack_tar(stream: Stream, tree: _Tree) -> None:
    for header in _tar_headers(stream, tree):
        if tree.wanted is not None and header.name.removeprefix("./") not in tree.wanted:
            _skip(stream, header.size, tree)
            continue
        name = safe_name(header.name)
        if header.kind == _DIRECTORY or header.name.endswith("/"):
            if name:
                tree.directory(name)
            _skip(stream, header.size, tree)
        elif not name:
            raise ArchiveError("an entry has no name")
        else:
            tree.file(name, stream, header.size, executable=header.executable)
            _skip_padding(stream, header.size)


def _tar_headers(stream: Stream, tree: _Tree) -> Iterator[_Header]:
    """Files and directories; the caller reads what follows each before it asks for the next."""
    long_name: str | None = None
    records: dict[str, str] = {}
    headers = 0
    while (header := _tar_header(stream)) is not None:
        tree.check()
        headers += 1
        if headers > _HEADERS_PER_ENTRY * tree.caps.entries:
            raise ArchiveError(f"has more than {headers - 1} headers")
        match header.kind:
            case b"L":
                long_name = _extension(stream, header).rstrip(b"\0").decode()
            case b"x":
                records = _pax_records(_extension(stream, header))
            case b"g":
                _extension(stream, header)
            case kind if kind in _FILES or kind == _DIRECTORY:
                yield _with_extensions(header, long_name, records)
                long_name, records = None, {}
            case b"K" if tree.wanted is not None:
                _extension(stream, header)
            case b"1" | b"2" | b"3" | b"4" | b"6" if tree.wanted is not None:
                long_name, records = None, {}  # nothing follows them
            case kind:
                what = _WHAT.get(kind, "of an unknown kind")
                raise ArchiveError(f"{header.name!r} is {what}")


def _tar_header(stream: Stream) -> _Header | None:
    block = stream.read_exactly(_BLOCK)
    if len(block) < _BLOCK or not block.strip(b"\0"):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")  # parses one block, opens nothing
    except tarfile.HeaderError as error:
        raise ArchiveError(f"is neither zip nor tar, or damaged: {error}") from error
    if info.size < 0:
        raise ArchiveError(f"{info.name!r} has a negative size")
    return _Header(info.name, info.size, info.type, bool(info.mode & 0o100))


def _extension(stream: Stream, header: _Header) -> bytes:
    if header.size > _MAX_EXTENSION_BYTES:
        raise ArchiveError("has an extended header that is too large")
    body = stream.read_exactly(header.size)
    if len(body) < header.size:
        raise ArchiveError("ends too early")
    _skip_padding(stream, header.size)
    return body


def _pax_records(body: bytes) -> dict[str, str]:
    """Lines of the form `length key=value`, where the length counts itself."""
    records = {}
    while body.strip(b"\0"):
        length_text, _, _ = body.partition(b" ")
        if not length_text.isdigit() or len(length_text) > 6 or int(length_text) > len(body):
            raise ArchiveError("has a damaged extended header")
        length = int(length_text)
        record, body = body[len(length_text) + 1 : length], body[length:]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        if length <= len(length_text) + 1:
            raise ArchiveError("has a damaged extended header")
        records[key.decode()] = value.decode()
    return records


def _with_extensions(header: _Header, long_name: str | None, records: dict[str, str]) -> _Header:
    if sparse := next((key for key in records if key.startswith("GNU.sparse")), None):
        raise ArchiveError(f"{header.name!r} is a sparse file ({sparse})")
    size = records.get("size", str(header.size))
    if not size.isdecimal() or len(size) > 16:
        raise ArchiveError("has a damaged extended header")
    name = records.get("path", long_name or header.name)
    return _Header(name, int(size), header.kind, header.executable)


def _skip(stream: Stream, size: int, tree: _Tree) -> None:
    tree.refuse_size(size)
    tree.written += size  # nothing is, but to read it costs as much
    stream.skip(size)
    _skip_padding(stream, size)


def _skip_padding(stream: Stream, size: int) -> None:
    stream.skip(-size % _BLOCK)
