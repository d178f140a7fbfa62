"""How bytes are cut into lines, and how both ends find the start of a connection in garbage."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.channel import (
    FILLER,
    MAX_FRAME_BYTES,
    GuestHandshake,
    HostHandshake,
    LineSplitter,
    mark,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NONCE = bytes(range(16))
pieces = st.lists(st.integers(1, 50), max_size=30)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


@given(st.binary(max_size=400), pieces, st.integers(1, 30))
def test_lines_do_not_depend_on_how_the_bytes_arrive(
    data: bytes, sizes: list[int], limit: int
) -> None:
    splitter = LineSplitter(limit)
    lines = [line for part in cut(data, sizes) for line in splitter.feed(part)]
    ended = data.split(b"\n")[:-1]
    assert lines == [line for line in ended if 0 < len(line) <= limit]
    too_long = [line for line in data.split(b"\n") if len(line) > limit]
    assert splitter.oversized == len(too_long)


@given(st.lists(st.text(max_size=20), max_size=10), pieces)
def test_json_lines_arrive_as_they_were_sent(texts: list[str], sizes: list[int]) -> None:
    data = b"".join(json.dumps(text).encode() + b"\n" for text in texts)
    splitter = LineSplitter(1000)
    lines = [line for part in cut(data, sizes) for line in splitter.feed(part)]
    assert [json.loads(line) for line in lines] == texts


def test_a_line_without_end_takes_no_memory() -> None:
    splitter = LineSplitter(100)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert splitter.oversized == 1
    assert splitter.feed(b"\nshort\n") == [b"short"]


@given(st.binary(max_size=300), pieces, st.integers(0, 3), st.binary(max_size=100))
def test_the_host_finds_mark_and_preface_behind_any_garbage(
    garbage: bytes, sizes: list[int], repeats: int, frames: bytes
) -> None:
    handshake = HostHandshake()
    own = mark(7, NONCE)
    answers = b""
    for part in cut(garbage + own + (FILLER[:50] + own) * repeats, sizes):
        answers += handshake.feed(part).answer
    assert answers.removeprefix(FILLER) == own
    assert handshake.epoch == 7
    connection = b""
    for part in cut(PREFACE + frames, sizes):
        connection += part if connection else handshake.feed(part).connection
    assert connection == PREFACE + frames


@given(st.binary(max_size=300), pieces, st.integers(1, 3), st.binary(max_size=100))
def test_the_guest_drops_what_came_before_the_answer_to_its_own_mark(
    garbage: bytes, sizes: list[int], answers: int, frames: bytes
) -> None:
    own, older = mark(7, NONCE), mark(7, NONCE[::-1])
    handshake = GuestHandshake(own)
    settings = b"\0\0\0\x04" + frames
    heard = b""
    for part in cut(garbage + older + garbage + own * answers + settings, sizes):
        heard += part if heard else handshake.feed(part)
    assert handshake.answered
    assert heard == settings


def test_the_host_says_nothing_before_the_guest_does_and_complains_once_about_garbage() -> None:
    handshake = HostHandshake()
    assert handshake.feed(b"").answer == b""
    assert handshake.feed(mark(7, NONCE)[:40]).answer == b""
    handshake = HostHandshake()
    assert handshake.feed(b"x").answer == FILLER
    assert handshake.feed(b"x" * 1000).answer == b""


def test_the_filler_ends_any_frame() -> None:
    assert len(FILLER) > MAX_FRAME_BYTES + 9
    assert not FILLER.strip(b"\0")


def test_a_mark_has_64_bytes_whatever_the_epoch() -> None:
    assert {len(mark(epoch, NONCE)) for epoch in (0, 1, 1 << 53)} == {64}
    assert re.fullmatch(rb"[ -~]{63}\n", mark(3, NONCE))
