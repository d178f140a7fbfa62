"""Both ends of the file, as client and application hold them."""

import os
from pathlib import Path

import pytest

from vm_launcher.boinc.errors import SharedMemoryError
from vm_launcher.boinc.shared_memory import (
    FILE_BYTES,
    MOST_TEXT_BYTES,
    Channel,
    MessageFile,
    open_shared_memory,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "boinc_mmap_file"
    path.write_bytes(bytes(FILE_BYTES))
    return path


def test_a_message_is_read_once_and_makes_room_for_the_next(path: Path) -> None:
    client, application = MessageFile(path), MessageFile(path)
    assert client.send(Channel.HEARTBEAT, "one")
    assert client.unread(Channel.HEARTBEAT)
    assert not client.send(Channel.HEARTBEAT, "two")
    assert application.receive(Channel.TRICKLE_DOWN) is None
    assert application.receive(Channel.HEARTBEAT) == "one"
    assert application.receive(Channel.HEARTBEAT) is None
    assert not client.unread(Channel.HEARTBEAT)
    assert client.send(Channel.HEARTBEAT, "2")
    assert application.receive(Channel.HEARTBEAT) == "2"


def test_the_longest_text_stays_in_its_channel(path: Path) -> None:
    memory = MessageFile(path)
    for channel in Channel:
        assert memory.send(channel, f"{channel.value}" * MOST_TEXT_BYTES)
    for channel in Channel:
        assert memory.receive(channel) == f"{channel.value}" * MOST_TEXT_BYTES


@pytest.mark.parametrize("text", ["x" * (MOST_TEXT_BYTES + 1), "a\0b", "é" * MOST_TEXT_BYTES])
def test_a_text_that_does_not_fit(path: Path, text: str) -> None:
    memory = MessageFile(path)
    with pytest.raises(ValueError, match="no message"):
        memory.send(Channel.APP_STATUS, text)
    assert not memory.unread(Channel.APP_STATUS)


def test_bytes_without_an_end_or_an_encoding(path: Path) -> None:
    path.write_bytes(b"\xff" * FILE_BYTES)
    memory = MessageFile(path)
    text = memory.receive(Channel.PROCESS_CONTROL_REQUEST)
    assert text is not None and len(text) == MOST_TEXT_BYTES
    assert memory.receive(Channel.PROCESS_CONTROL_REQUEST) is None


def test_a_file_that_is_none_of_the_clients(path: Path, tmp_path: Path) -> None:
    path.write_bytes(bytes(FILE_BYTES - 1))
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for wrong in (path, tmp_path / "link", tmp_path / "fifo", tmp_path, tmp_path / "none"):
        with pytest.raises(SharedMemoryError, match="cannot be used"):
            MessageFile(wrong)


def test_the_kinds_that_we_do_not_speak(path: Path) -> None:
    with pytest.raises(SharedMemoryError, match="Windows"):
        open_shared_memory(path.parent, None, "boinc_1")
    with pytest.raises(SharedMemoryError, match="shm_key 1234") as told:
        open_shared_memory(path.parent, 1234)
    assert "api_version" in told.value.remedy
    open_shared_memory(path.parent, -1).close()
