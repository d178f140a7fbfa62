"""The link's eyes: it must see every step, however the bytes are cut."""

import json
from collections.abc import Iterator

import pytest

from copilot_agent.protocol.frames import ManagerFrame, PilotFrame, Wants
from tests.faults.wire import Conversation, Piece, Seen, Way, socket_frame

PILOT = PilotFrame(wants=Wants(cores=3, memory_mib=64, disk_mib=64)).model_dump_json().encode()
MANAGER = ManagerFrame(session=7, server_time=1.0).model_dump_json().encode()
UPGRADE = b"GET /pilot/v1/socket HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def of_socket(payload: bytes, mask: bytes = b"") -> bytes:
    """One final text frame, RFC 6455."""
    first = bytes([0x81, (0x80 if mask else 0) | 126]) + len(payload).to_bytes(2, "big")
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
    return first + mask + masked


def poll(payload: bytes) -> bytes:
    head = f"POST /pilot/v1/frames?wait=5 HTTP/1.1\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def answer(payload: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload


def played(script: list[tuple[Way, bytes]], size: int) -> Iterator[tuple[Way, Piece]]:
    """The script's bytes, `size` at a time."""
    both = Conversation()
    for way, data in script:
        stream = both.up if way is Way.UP else both.down
        for at in range(0, len(data), size):
            for piece in stream.feed(data[at : at + size]):
                yield way, piece


SOCKET = [
    (Way.UP, UPGRADE),
    (Way.DOWN, SWITCHED),
    (Way.UP, of_socket(PILOT, b"abcd") + of_socket(PILOT, b"wxyz")),
    (Way.DOWN, of_socket(MANAGER)),
]
POLL = [
    (Way.UP, poll(PILOT)),
    (Way.DOWN, answer(MANAGER)),
    (Way.UP, poll(PILOT)),
    (Way.DOWN, b"HTTP/1.1 204 No Content\r\n\r\n"),
]


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("script", "downs"), [(SOCKET, 1), (POLL, 1)], ids=["socket", "poll"])
def test_frames_are_seen_and_no_byte_is_changed(
    script: list[tuple[Way, bytes]], downs: int, size: int
) -> None:
    pieces = list(played(script, size))
    for way in Way:
        sent = b"".join(data for each, data in script if each is way)
        assert b"".join(piece.data for each, piece in pieces if each is way) == sent
    seen = [piece.seen for _, piece in pieces if piece.seen is not None and piece.seen.frame]
    assert [one.frame for one in seen if one.way is Way.UP] == [json_pilot()] * 2
    assert [one.frame for one in seen if one.way is Way.DOWN] == [json_manager()] * downs


def json_pilot() -> PilotFrame:
    return PilotFrame.model_validate(json.loads(PILOT))


def json_manager() -> ManagerFrame:
    return ManagerFrame.model_validate(json.loads(MANAGER))


def bodies(script: list[tuple[Way, bytes]], size: int) -> list[Seen]:
    return [piece.seen for _, piece in played(script, size) if piece.seen and piece.seen.moved]


def test_progress_of_files_is_counted() -> None:
    put = b"PUT /pilot/v1/outputs/j-1/1/result HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
    upload = bodies([(Way.UP, put + b"0123456789"), (Way.DOWN, answer(b"", "201 Created"))], 1)
    assert [(one.moved, one.total) for one in upload] == [(n, 10) for n in range(1, 11)]
    get = b"GET /pilot/v1/files/x HTTP/1.1\r\n\r\n"
    download = bodies([(Way.UP, get), (Way.DOWN, answer(b"0123456789"))], 5)
    assert [one.moved for one in download][-1] == 10


def test_chunks_and_replies_without_a_body_are_passed_over() -> None:
    script = [
        (Way.UP, b"HEAD /a HTTP/1.1\r\n\r\n"),
        (Way.DOWN, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (Way.UP, b"GET /b HTTP/1.1\r\n\r\n"),
        (Way.DOWN, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        *POLL,
    ]
    frames = [one for _, one in played(script, 1) if one.seen and one.seen.frame]
    assert len(frames) == 3


def test_a_long_frame_is_unmasked() -> None:
    payload = bytes(range(256)) * 300
    head = bytes([0x81, 0xFF]) + len(payload).to_bytes(8, "big") + b"\1\2\3\4"
    masked = bytes(byte ^ b"\1\2\3\4"[i % 4] for i, byte in enumerate(payload))
    assert socket_frame(head + masked) == (0x81, payload, len(head) + len(payload))
    assert socket_frame(head + masked[:-1]) is None
