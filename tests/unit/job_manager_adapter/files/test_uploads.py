"""Uploads go on where they were cut, and only whole, right files are kept."""

import asyncio
import errno
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent import blocks
from copilot_agent.blocks import BLOCK
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.files.blobs import BlobStore
from job_manager_adapter.files.uploads import OffsetMismatchError, Target, Uploads

DATA = bytes(range(256)) * 8192
SHA = hashlib.sha256(DATA).hexdigest()
TARGET = Target("output j 1 mass.txt", SHA, len(DATA))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def uploads(tmp_path: Path, blobs: BlobStore) -> Uploads:
    return Uploads(tmp_path, blobs, floor_bytes=0)


async def body(data: bytes, piece: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


async def cut_body(data: bytes) -> AsyncIterator[bytes]:
    async for piece in body(data):
        yield piece
    raise ConnectionResetError


def parts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "parts").iterdir())


async def test_a_file_arrives_whole(tmp_path: Path, uploads: Uploads, blobs: BlobStore) -> None:
    assert await uploads.receive(TARGET, 0, body(DATA)) == len(DATA)
    assert blobs.path(SHA).read_bytes() == DATA
    assert blobs.path(SHA).stat().st_mode & 0o077 == 0
    assert parts(tmp_path) == []


async def test_an_empty_file_arrives(uploads: Uploads, blobs: BlobStore) -> None:
    sha = hashlib.sha256(b"").hexdigest()
    assert await uploads.receive(Target("empty", sha, 0), 0, body(b"")) == 0
    assert blobs.size(sha) == 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_it_goes_on_after_a_cut(
    tmp_path: Path, uploads: Uploads, blobs: BlobStore, restarted: bool
) -> None:
    half = BLOCK + 12_345
    with pytest.raises(ConnectionResetError):
        await uploads.receive(TARGET, 0, cut_body(DATA[:half]))
    if restarted:
        uploads = Uploads(tmp_path, blobs, floor_bytes=0)
    assert uploads.offset(TARGET.key) == half
    assert await uploads.receive(TARGET, half, body(DATA[half:])) == len(DATA)
    assert blobs.path(SHA).read_bytes() == DATA


@pytest.mark.parametrize("long", [0, 1 << 30], ids=["past the page cache", "through it"])
@given(
    steps=st.lists(st.tuples(st.integers(0, len(DATA)), st.booleans(), st.booleans()), max_size=6)
)
@settings(max_examples=40)
def test_any_series_of_cuts_and_restarts_ends_with_the_right_file(
    long: int, steps: list[tuple[int, bool, bool]]
) -> None:
    async def play(root: Path) -> None:
        blobs = BlobStore(root)
        uploads = Uploads(root, blobs, floor_bytes=0)
        for length, cut, restart in steps:
            start = uploads.offset(TARGET.key)
            piece = DATA[start : min(start + length, len(DATA) - 1)]
            with suppress(ConnectionResetError):
                await uploads.receive(TARGET, start, cut_body(piece) if cut else body(piece))
            assert uploads.offset(TARGET.key) == start + len(piece)
            if restart:
                uploads = Uploads(root, blobs, floor_bytes=0)
        start = uploads.offset(TARGET.key)
        assert await uploads.receive(TARGET, start, body(DATA[start:])) == len(DATA)
        assert blobs.path(SHA).read_bytes() == DATA

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(blocks, "LONG", long)
        asyncio.run(play(Path(directory)))


async def test_another_offset_is_answered_with_the_right_one(uploads: Uploads) -> None:
    await uploads.receive(TARGET, 0, body(DATA[:5000]))
    for wrong in (0, 4999, 5001):
        with pytest.raises(OffsetMismatchError) as caught:
            await uploads.receive(TARGET, wrong, body(DATA[wrong:]))
        assert caught.value.offset == 5000


async def test_a_wrong_hash_drops_the_file(
    tmp_path: Path, uploads: Uploads, blobs: BlobStore
) -> None:
    with pytest.raises(CopilotError) as caught:
        await uploads.receive(TARGET, 0, body(DATA[:-1] + b"!"))
    assert caught.value.code == ErrorCode.HASH_MISMATCH
    assert parts(tmp_path) == []
    assert blobs.size(SHA) is None
    assert await uploads.receive(TARGET, 0, body(DATA)) == len(DATA)


async def test_other_content_for_the_same_target_starts_over(uploads: Uploads) -> None:
    await uploads.receive(TARGET, 0, body(DATA[:5000]))
    other = Target(TARGET.key, hashlib.sha256(b"other").hexdigest(), 5)
    assert await uploads.receive(other, 0, body(b"other")) == 5


async def test_more_than_announced_is_refused(uploads: Uploads) -> None:
    with pytest.raises(CopilotError) as caught:
        await uploads.receive(TARGET, 0, body(DATA + b"more"))
    assert caught.value.code == ErrorCode.TOO_LARGE


async def test_below_the_floor_nothing_is_stored(tmp_path: Path, blobs: BlobStore) -> None:
    uploads = Uploads(tmp_path, blobs, floor_bytes=1 << 60)
    with pytest.raises(CopilotError) as caught:
        await uploads.receive(TARGET, 0, body(DATA))
    assert caught.value.code == ErrorCode.NO_SPACE
    assert uploads.offset(TARGET.key) == 0


async def test_a_full_disk_keeps_what_is_there(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await uploads.receive(TARGET, 0, body(DATA[:5000]))
    monkeypatch.setattr(BlobStore, "free_bytes", lambda _: 0)
    with pytest.raises(CopilotError) as caught:
        await uploads.receive(TARGET, 5000, body(DATA[5000:]))
    assert caught.value.code == ErrorCode.NO_SPACE
    assert uploads.offset(TARGET.key) == 5000


async def test_what_could_not_be_made_to_last_is_not_trusted(
    uploads: Uploads, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CopilotError) as caught:
        await uploads.receive(TARGET, 0, body(DATA))
    assert caught.value.code == ErrorCode.NO_SPACE
    monkeypatch.undo()
    assert blobs.size(SHA) is None
    assert uploads.offset(TARGET.key) == 0
    assert await uploads.receive(TARGET, 0, body(DATA)) == len(DATA)


async def test_a_newer_upload_ends_an_older_one_that_hangs(
    uploads: Uploads, blobs: BlobStore
) -> None:
    begun = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield DATA[:BLOCK]
        begun.set()
        await asyncio.Event().wait()

    older = asyncio.create_task(uploads.receive(TARGET, 0, hanging()))
    await begun.wait()
    with pytest.raises(OffsetMismatchError) as caught:
        await uploads.receive(TARGET, 5, body(DATA[5:]))
    assert caught.value.offset == BLOCK
    assert await uploads.receive(TARGET, BLOCK, body(DATA[BLOCK:])) == len(DATA)
    with pytest.raises(asyncio.CancelledError):
        await older
    assert blobs.path(SHA).read_bytes() == DATA


async def test_half_files_go_after_a_day(tmp_path: Path, uploads: Uploads) -> None:
    await uploads.receive(TARGET, 0, body(DATA[:5000]))
    assert uploads.clean() == 0
    for path in parts(tmp_path):
        os.utime(path, (0, 0))
    assert uploads.clean() == 1
    assert parts(tmp_path) == []


async def test_a_link_planted_in_the_parts_is_not_followed(
    tmp_path: Path, uploads: Uploads
) -> None:
    await uploads.receive(TARGET, 0, body(DATA[:5000]))
    [part] = [path for path in parts(tmp_path) if path.suffix == ".part"]
    victim = tmp_path / "victim"
    victim.write_bytes(DATA[:5000])
    part.unlink()
    part.symlink_to(victim)
    with pytest.raises(OSError):
        await uploads.receive(TARGET, 5000, body(DATA[5000:]))
    assert victim.read_bytes() == DATA[:5000]
