"""The file mover against a server that breaks off, forgets ranges and lets links run out."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from copilot_agent.transports.base import FileMoveError
from copilot_agent.transports.connections import open_session
from copilot_agent.transports.files import HttpFileMover
from tests.unit.copilot_agent.transports.scripted import ScriptedFiles, ScriptedManager, make_file

DATA = bytes(range(256)) * 4096
SHA = hashlib.sha256(DATA).hexdigest()


@dataclass
class Yard:
    mover: HttpFileMover
    files: ScriptedFiles
    url: str
    target: Path

    async def get(self, name: str, *, offset: int = 0, max_bytes: int = 1 << 24) -> str:
        url = f"{self.url}/files/{name}"
        return await self.mover.download(url, self.target, offset=offset, max_bytes=max_bytes)

    async def put(self, source: Path, sha256: str, query: str = "") -> None:
        url = f"{self.url}/out/x{query}"
        size = source.stat().st_size
        await self.mover.upload(url, source, sha256=sha256, size=size)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with ScriptedManager().running() as manager, open_session() as session:
        manager.files.inputs["data"] = DATA
        yield Yard(HttpFileMover(session), manager.files, manager.url, tmp_path / "target")


async def test_a_download_is_whole(yard: Yard) -> None:
    assert await yard.get("data") == SHA
    assert yard.target.read_bytes() == DATA


async def test_a_broken_download_goes_on_where_it_stopped(yard: Yard) -> None:
    yard.files.cut = 300_000
    with pytest.raises(FileMoveError) as caught:
        await yard.get("data")
    assert caught.value.retryable
    offset = yard.target.stat().st_size
    assert 0 < offset < len(DATA)
    assert await yard.get("data", offset=offset) == SHA
    assert yard.target.read_bytes() == DATA
    assert yard.files.served <= len(DATA) + 300_000 - offset


async def test_a_server_without_ranges_starts_over(yard: Yard) -> None:
    yard.target.write_bytes(b"old rubbish")
    yard.files.missing_ranges = True
    assert await yard.get("data", offset=11) == SHA
    assert yard.target.read_bytes() == DATA


async def test_more_than_the_bound_is_refused(yard: Yard) -> None:
    with pytest.raises(FileMoveError, match="more than 1000 bytes") as caught:
        await yard.get("data", max_bytes=1000)
    assert not caught.value.retryable


async def test_a_missing_file_is_final(yard: Yard) -> None:
    with pytest.raises(FileMoveError, match="404") as caught:
        await yard.get("absent")
    assert not caught.value.retryable


async def test_nobody_there_is_worth_another_try(yard: Yard) -> None:
    with pytest.raises(FileMoveError) as caught:
        await yard.mover.download("http://127.0.0.1:9/x", yard.target, offset=0, max_bytes=10)
    assert caught.value.retryable


async def test_an_expired_link_says_so(yard: Yard, tmp_path: Path) -> None:
    yard.files.expired.add("old")
    source, digest = make_file(tmp_path / "source", DATA)
    for move in (yard.get("data?link=old"), yard.put(source, digest, "?link=old")):
        with pytest.raises(FileMoveError) as caught:
            await move
        assert caught.value.link_expired


async def test_an_upload_goes_on_after_what_the_server_has(yard: Yard, tmp_path: Path) -> None:
    source, digest = make_file(tmp_path / "source", DATA)
    yard.files.outputs["x"] = DATA[:1000]
    yard.files.cut = 5000
    await yard.put(source, digest)
    assert yard.files.outputs["x"] == DATA


async def test_an_empty_file_is_uploaded_too(yard: Yard, tmp_path: Path) -> None:
    source, digest = make_file(tmp_path / "source", b"")
    await yard.put(source, digest)
    assert yard.files.outputs["x"] == b""


async def test_a_hash_that_does_not_fit_is_worth_another_try(yard: Yard, tmp_path: Path) -> None:
    source, _ = make_file(tmp_path / "source", DATA)
    with pytest.raises(FileMoveError, match="hash_mismatch") as caught:
        await yard.put(source, "0" * 64)
    assert caught.value.retryable
