"""Packs a directory behind a shell script that unpacks and becomes it."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path


def bundle(directory: Path, header: Path, out: Path) -> None:
    """Equal directories give equal files. gzip, because every host has it."""
    packed = gzip.compress(_tar(directory), 9, mtime=0)
    unpacked = sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
    part = out.with_name(f".{out.name}.part")
    part.write_bytes(_head(header.read_text(), unpacked) + packed)
    part.chmod(0o755)
    part.replace(out)


def _head(text: str, unpacked: int) -> bytes:
    """The script, in which the place of the first packed byte is written with a fixed width."""
    text = text.replace("@MEGABYTES@", str(unpacked // 1_000_000 + 1))
    width = 6
    start = len(text.replace("@START@", "0" * width).encode()) + 1
    return text.replace("@START@", f"{start:0{width}d}").encode()


def _tar(directory: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            archive.add(path, name, recursive=False, filter=_anonymous)
    return stream.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
