"""The memory that the client shares with its task: eight channels of one message each.

Byte 0 of a channel says whether there is an unread message, then comes its text, ended by a NUL.
There is no lock: the sender writes the text before the flag, the receiver clears the flag last.
"""

import mmap
import os
import stat
from abc import ABC, abstractmethod
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from vm_launcher.boinc.errors import SharedMemoryError

FILE_NAME = "boinc_mmap_file"
CHANNEL_BYTES = 1024
MOST_TEXT_BYTES = CHANNEL_BYTES - 2
"""Without flag and NUL."""

MAPPED_FILE_KEY = -1
"""`shm_key` of a client that maps a file, which all have done since 2008."""


class Channel(IntEnum):
    PROCESS_CONTROL_REQUEST = 0  #: client → application
    PROCESS_CONTROL_REPLY = 1  #: unused
    GRAPHICS_REQUEST = 2  #: unused
    GRAPHICS_REPLY = 3  #: application → client
    HEARTBEAT = 4  #: client → application
    APP_STATUS = 5  #: application → client
    TRICKLE_UP = 6  #: application → client
    TRICKLE_DOWN = 7  #: client → application


FILE_BYTES = len(Channel) * CHANNEL_BYTES


class SharedMemory(ABC):
    """Both sides use it alike; each sends on some channels and receives on the others."""

    @abstractmethod
    def send(self, channel: Channel, text: str) -> bool:
        """False if the other side has not read the last message; `ValueError` if too long."""

    @abstractmethod
    def receive(self, channel: Channel) -> str | None:
        """The unread message, which counts as read then; None without one."""

    @abstractmethod
    def unread(self, channel: Channel) -> bool: ...

    @abstractmethod
    def close(self) -> None: ...


class MessageFile(SharedMemory):
    """`boinc_mmap_file` in the slot, which the client makes before it starts the task."""

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            _refuse(path, error.strerror or "cannot be opened")
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size < FILE_BYTES:
                _refuse(path, f"not a file of {FILE_BYTES} bytes")
            self._memory = mmap.mmap(descriptor, FILE_BYTES)
        finally:
            os.close(descriptor)

    def send(self, channel: Channel, text: str) -> bool:
        data = text.encode()
        if len(data) > MOST_TEXT_BYTES or b"\0" in data:
            raise ValueError(f"no message of at most {MOST_TEXT_BYTES} bytes: {text[:80]!r}")
        if self.unread(channel):
            return False
        start = channel * CHANNEL_BYTES
        self._memory[start + 1 : start + 2 + len(data)] = data + b"\0"
        self._memory[start] = 1
        return True

    def receive(self, channel: Channel) -> str | None:
        if not self.unread(channel):
            return None
        start = channel * CHANNEL_BYTES
        data = self._memory[start + 1 : start + 1 + MOST_TEXT_BYTES]
        self._memory[start] = 0
        return data.partition(b"\0")[0].decode(errors="replace")

    def unread(self, channel: Channel) -> bool:
        return self._memory[channel * CHANNEL_BYTES] != 0

    def close(self) -> None:
        self._memory.close()


class NamedMapping(SharedMemory):
    """Windows: a named file mapping, named by `comm_obj_name` of init_data.xml. Not written yet."""


def open_shared_memory(slot: Path, shm_key: int | None, comm_obj_name: str = "") -> SharedMemory:
    """As init_data.xml of this slot names it; raises `SharedMemoryError`."""
    if comm_obj_name:  # a `NamedMapping`
        raise SharedMemoryError(
            f"the shared memory {comm_obj_name!r} is Windows', which this launcher cannot open yet",
            remedy="attach a computer with Linux to this project",
        )
    if shm_key != MAPPED_FILE_KEY:
        raise SharedMemoryError(
            f"shm_key {shm_key} of init_data.xml names a kind of shared memory that is too old",
            remedy="the application version of the project needs an <api_version> of 6 or later",
        )
    return MessageFile(slot / FILE_NAME)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise SharedMemoryError(
        f"the shared memory {path} cannot be used: {reason}",
        remedy="the BOINC client makes it; without BOINC use vm-launcher run",
    ) from None
