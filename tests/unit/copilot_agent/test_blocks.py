"""Files in blocks: whole or cut, past the page cache and through it, on odd disks."""

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent import blocks
from copilot_agent.blocks import BLOCK, Incoming, read_long, store_body

DATA = os.urandom(3 * BLOCK + 5000)


@pytest.fixture
def long_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONG", 0)


def incoming(path: Path, offset: int = 0) -> Incoming:
    return Incoming(path, offset, len(DATA), hashlib.sha256(DATA[:offset]))


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("start", [0, 1, 4096, BLOCK, BLOCK + 4097])
async def test_a_file_is_whole_from_wherever_it_goes_on(
    tmp_path: Path, long_from_the_first_byte: None, start: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA[:start] + b"dropped")
    file = incoming(path, start)
    await store_body(pieces(DATA[start:], 300_000), start, file.append, ())
    assert (file.offset, file.digest.digest()) == (len(DATA), hashlib.sha256(DATA).digest())
    file.sync()
    file.close()
    assert path.read_bytes() == DATA


async def test_whole_blocks_do_not_fill_the_page_cache(
    tmp_path: Path, long_from_the_first_byte: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[int] = []
    write = os.pwrite

    def seen(descriptor: int, data: memoryview, offset: int) -> int:
        flags.append(int(_fdinfo(descriptor, "flags"), 8))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", seen)
    file = incoming(tmp_path / "x")
    await store_body(pieces(DATA, 300_000), 0, file.append, ())
    file.close()
    assert [bool(each & os.O_DIRECT) for each in flags] == [True] * 4 + [False]


def _fdinfo(descriptor: int, name: str) -> str:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return dict(line.split(":\t") for line in lines)[name]


async def test_a_disk_that_cannot_be_written_past_the_cache_is_written_through_it(
    tmp_path: Path, long_from_the_first_byte: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def picky(descriptor: int, data: memoryview, offset: int) -> int:
        if int(_fdinfo(descriptor, "flags"), 8) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "not aligned for this disk")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    file = incoming(tmp_path / "x")
    await store_body(pieces(DATA, 300_000), 0, file.append, ())
    file.close()
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_block_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(descriptor, data[:100], offset)

    file = incoming(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError):
            file.append(memoryview(DATA[:BLOCK]))
    assert (file.offset, (tmp_path / "x").stat().st_size) == (0, 0)
    file.append(memoryview(DATA[:BLOCK]))
    file.close()
    assert file.digest.digest() == hashlib.sha256(DATA[:BLOCK]).digest()
    assert (tmp_path / "x").read_bytes() == DATA[:BLOCK]


async def test_what_came_before_a_cut_is_stored() -> None:
    stored = bytearray()

    async def cut() -> AsyncIterator[bytes]:
        yield DATA[: BLOCK + 10]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store_body(cut(), 0, stored.extend, (ConnectionError,))
    assert stored == DATA[: BLOCK + 10]


@given(start=st.integers(0, len(DATA)), count=st.integers(0, len(DATA)))
@settings(max_examples=20)
async def test_any_stretch_of_a_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, start: int, count: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "stretch"
    if not path.exists():
        path.write_bytes(DATA)
    count = min(count, len(DATA) - start)
    async with aclosing(read_long(path, start, count)) as body:
        assert b"".join([bytes(block) async for block in body]) == DATA[start : start + count]


async def test_a_reader_that_leaves_early_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    async with aclosing(read_long(path, 0, len(DATA))) as body:
        async for _ in body:
            break
    opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert str(path) not in opened
