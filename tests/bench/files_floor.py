"""The least that bringing a file costs on this disk: read, hash, write, make it last."""

import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
MIB, GIB = 1 << 20, 1 << 30

Copy = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Floor:
    what: str
    mib_per_second: float
    cpu_seconds_per_gib: float


def through_the_cache(source: Path, target: Path) -> Floor:
    return _measured("one thread reads, hashes, writes; fsync", _in_turn, source, target)


def past_the_cache(source: Path, target: Path) -> Floor:
    return _measured("read, hash and O_DIRECT write at a time; fsync", _at_a_time, source, target)


def _measured(what: str, copy: Copy, source: Path, target: Path) -> Floor:
    size, started, used = source.stat().st_size, time.perf_counter(), time.process_time()
    copy(source, target)
    used, seconds = time.process_time() - used, time.perf_counter() - started
    target.unlink()
    return Floor(what, size / MIB / seconds, used / size * GIB)


def _in_turn(source: Path, target: Path) -> None:
    digest = sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while data := file.read(BLOCK):
            digest.update(data)
            copy.write(data)
        copy.flush()
        os.fsync(copy.fileno())


def _at_a_time(source: Path, target: Path) -> None:
    """Of a file of whole blocks. One block is read while the one before is hashed and written."""
    digest, blocks = sha256(), [memoryview(mmap.mmap(-1, BLOCK)) for _ in range(2)]
    copy = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
    with source.open("rb", buffering=0) as file, ThreadPoolExecutor(2) as threads:
        busy: list[Future[Any]] = []
        for number in range(source.stat().st_size // BLOCK):
            file.readinto(block := blocks[number % 2])
            for work in busy:
                work.result()
            writing = threads.submit(os.pwrite, copy, block, number * BLOCK)
            busy = [writing, threads.submit(digest.update, block)]
    os.fsync(copy)
    os.close(copy)
