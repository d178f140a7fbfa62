import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.payload.logs import LogFile, printable


async def write(log: LogFile, pieces: list[bytes]) -> None:
    """Writes like a payload, from a descriptor of its own."""
    writer = os.dup(log.writer)
    log.attach(asyncio.get_running_loop())

    def pour() -> None:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(writer, rest) :]
        os.close(writer)

    await asyncio.to_thread(pour)
    log.drain()


async def test_without_a_word_there_is_no_file(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", 100)
    await write(log, [])
    assert log.tail(10) == b""
    log.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1, 99, 100])
async def test_short_logs_are_kept_whole(tmp_path: Path, size: int) -> None:
    log = LogFile(tmp_path / "log", 100)
    await write(log, [b"a" * size])
    assert log.total == size
    log.close()
    assert (tmp_path / "log").read_bytes() == b"a" * size


async def test_long_logs_lose_their_middle(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", 100)
    text = b"".join(b"%06d " % n for n in range(100))
    await write(log, [text])
    assert log.tail(30) == text[-30:]
    log.close()
    note = b"\n[... 600 bytes cut here: the log is limited to 100 bytes ...]\n"
    assert (tmp_path / "log").read_bytes() == text[:50] + note + text[-50:]
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=70), max_size=12), st.integers(14, 60), st.integers(1, 90))
def test_any_log(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], half: int, tail: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    text = b"".join(pieces)

    async def run() -> bytes:
        log = LogFile(path, 2 * half)
        await write(log, pieces)
        seen = log.tail(tail)
        log.close()
        return seen

    seen = asyncio.run(run())
    assert text.endswith(seen)
    assert len(seen) == min(tail, len(text) if len(text) <= 2 * half else half)
    kept = path.read_bytes() if text else b""
    if len(text) <= 2 * half:
        assert kept == text
    else:
        assert kept.startswith(text[:half] + b"\n[... ")
        assert kept.endswith(b" ...]\n" + text[-half:])


async def test_a_full_disk_blocks_nobody() -> None:
    log = LogFile(Path("/dev/full"), 1 << 20)
    await write(log, [b"x" * 500_000] * 3)
    with pytest.raises(OSError, match="No space left"):
        log.close()


async def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "target")
    log = LogFile(tmp_path / "log", 100)
    await write(log, [b"words"])
    with pytest.raises(OSError, match="symbolic links"):
        log.close()
    assert not (tmp_path / "target").exists()


def test_printable() -> None:
    raw = b"ok\ttab\nline\r\x1b[31mred\x00\xff\xc3\xa9" + "\u202eevil\u2028\x85".encode()
    assert printable(raw) == ("ok\ttab\nline\\r\\x1b[31mred\\x00�é\\u202eevil\\u2028\\x85")
