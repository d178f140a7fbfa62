"""Our Chirp client with the real server, and with one that misbehaves."""

import asyncio
import hashlib
import io
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from copilot_agent.transports.copilot1.chirp import ChirpError, Patience, connected
from tests.harness.chirp import ChirpServer

HURRIED = Patience(connect=2.0, silence=0.3)
GREETING = b"yes\nyes\nyes\naddress\n127.0.0.1\n"


@pytest.fixture
def place(chirp: ChirpServer) -> Path:
    return chirp.directory(f"place-{secrets.token_hex(8)}")


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
async def test_a_file_comes_back_as_it_went(
    chirp: ChirpServer, place: Path, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    moved: list[int] = []
    async with connected(chirp.address) as client:
        path = f"{place.name}/file"
        await client.put_file(io.BytesIO(content), path, size=size, moved=moved.append)
        got = await client.get_file(path, tmp_path / "back", max_bytes=size, moved=moved.append)
    assert (place / "file").read_bytes() == content == (tmp_path / "back").read_bytes()
    assert got == size
    assert sum(moved) == 2 * size


async def test_a_hundred_megabytes_come_back_as_they_went(
    chirp: ChirpServer, place: Path, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1_000_000))
    async with connected(chirp.address) as client:
        with source.open("rb") as file:
            await client.put_file(file, f"{place.name}/large", size=100_000_000)
        await client.get_file(f"{place.name}/large", tmp_path / "back", max_bytes=100_000_000)
    assert _digest(source) == _digest(tmp_path / "back")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("path", "words"),
    [("place/none", "no such file"), ("nowhere/none", "no such file"), ("place", "a directory")],
)
async def test_what_is_not_there_is_said_to_be_not_there(
    chirp: ChirpServer, place: Path, tmp_path: Path, path: str, words: str
) -> None:
    async with connected(chirp.address) as client:
        with pytest.raises(ChirpError, match=words) as caught:
            name = path.replace("place", place.name)
            await client.get_file(name, tmp_path / "back", max_bytes=10)
    assert not caught.value.retryable


async def test_without_rights_nothing_is_read_or_written(
    chirp: ChirpServer, tmp_path: Path
) -> None:
    closed = chirp.directory("closed", "rwl", "hostname:nobody.example.org")
    chirp.put(closed, "file", b"secret")
    with pytest.raises(ChirpError, match=f"{chirp.address}: the server gives no right"):
        async with connected(chirp.address) as client:
            await client.get_file("closed/file", tmp_path / "back", max_bytes=10)
    with pytest.raises(ChirpError, match="no right"):
        async with connected(chirp.address) as client:
            await client.put_file(io.BytesIO(b"x"), "closed/new", size=1)
    assert sorted(path.name for path in closed.iterdir()) == [".__acl", "file"]


async def test_odd_names_reach_the_file_that_they_name(chirp: ChirpServer, place: Path) -> None:
    name = "a b%0a;touch $(x)\n'\"é"
    async with connected(chirp.address) as client:
        await client.put_file(io.BytesIO(b"x"), f"{place.name}/{name}", size=1)
        await client.make_directory(f"{place.name}/sub")
    assert (place / name).read_bytes() == b"x"
    assert (place / "sub").is_dir()


async def test_nobody_there_is_worth_another_try(chirp: ChirpServer) -> None:
    with pytest.raises(ChirpError, match=r"127\.0\.0\.1:1 is not reachable") as caught:
        async with connected("127.0.0.1:1"):
            pass
    assert caught.value.retryable


# ----- a server that misbehaves

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def misbehaving(answer: bytes, *, stays: bool = False) -> AsyncIterator[str]:
    """Greets properly, answers the first request with `answer`, and hangs up or says no more."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.readline()
        await reader.readline()
        writer.write(answer)
        if stays:
            await gone.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        gone.set()
        server.close()


@pytest.mark.parametrize(
    ("answer", "words", "retryable"),
    [
        (b"10\nabc", "ended 7 bytes early", True),
        (b"11\n", "11 bytes, more than the 10", False),
        (b"9" * 30 + b"\n", "no number", False),
        (b"ten\n", "no number", False),
        (b"1" * 5000, "no end", False),
        (b"1" * 5_000_000, "no end", False),
        (b"-99\n", "error 99", True),
        (b"", "connection ended", True),
    ],
)
async def test_a_wrong_answer_is_refused_in_words(
    tmp_path: Path, answer: bytes, words: str, retryable: bool
) -> None:
    async with misbehaving(answer) as address:
        with pytest.raises(ChirpError, match=words) as caught:
            async with connected(address, HURRIED) as client:
                await client.get_file("file", tmp_path / "back", max_bytes=10)
    assert caught.value.retryable is retryable


async def test_silence_in_the_middle_of_a_file_ends_it(tmp_path: Path) -> None:
    async with misbehaving(b"10\nabc", stays=True) as address:
        with pytest.raises(ChirpError, match="does not answer"):
            async with connected(address, HURRIED) as client:
                await client.get_file("file", tmp_path / "back", max_bytes=10)


async def test_a_server_that_takes_less_than_it_was_given_has_not_taken_it(
    tmp_path: Path,
) -> None:
    async with misbehaving(b"0\n3\n", stays=True) as address:
        with pytest.raises(ChirpError, match="took 3 of 5 bytes"):
            async with connected(address, HURRIED) as client:
                await client.put_file(io.BytesIO(b"hello"), "file", size=5)


async def test_a_connection_cut_while_a_file_goes_out_is_worth_another_try(
    chirp: ChirpServer, place: Path
) -> None:
    async with misbehaving(b"0\n") as address:
        with pytest.raises(ChirpError) as caught:
            async with connected(address, HURRIED) as client:
                content = io.BytesIO(bytes(50_000_000))
                await client.put_file(content, "file", size=50_000_000)
    assert caught.value.retryable


async def test_a_file_that_is_there_already_is_not_written_over(
    chirp: ChirpServer, place: Path, tmp_path: Path
) -> None:
    chirp.put(place, "file", b"new")
    (tmp_path / "old").write_bytes(b"old")
    async with connected(chirp.address) as client:
        with pytest.raises(FileExistsError):
            await client.get_file(f"{place.name}/file", tmp_path / "old", max_bytes=10)
    assert (tmp_path / "old").read_bytes() == b"old"
