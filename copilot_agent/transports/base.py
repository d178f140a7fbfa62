"""What a carrier of the conversation and a mover of files must do."""

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame


class TransportError(Exception):
    """`wait_seconds`: at least so long, said the server."""

    def __init__(
        self, trouble: TransportTrouble, message: str, *, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message
        self.wait_seconds = wait_seconds


class NotOfferedError(TransportError):
    """This carrier cannot be had here: there is no point in trying it twice."""

    def __init__(self, message: str) -> None:
        super().__init__(TransportTrouble.UNREACHABLE, message)


class Transport(Protocol):
    """One carrier. After `close` or an error it may be connected again."""

    async def connect(self, token: str) -> None:
        """Raises TransportError."""

    async def send(self, frame: PilotFrame) -> None:
        """Returns when the frame is handed to the system. Raises TransportError."""

    def frames(self) -> AsyncIterator[ManagerFrame]:
        """Frames as they come. Ends by raising TransportError, or quietly after `close`."""

    def use_token(self, token: str) -> None:
        """A fresh token; the connection goes on."""

    async def close(self) -> None: ...


class Dialer(Protocol):
    """Opens connections where there is no network card: in the guest."""

    async def dial(self, host: str, port: int) -> socket.socket | None:
        """A connected non-blocking socket; None means ordinary TCP. Raises OSError."""


class FileMoveError(Exception):
    """A transfer failed. `retryable`: the same call may work later, from where it stopped."""

    def __init__(self, message: str, *, retryable: bool, link_expired: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.link_expired = link_expired


Moved = Callable[[int], None]
"""Told how many more bytes have been moved."""


class FileMover(Protocol):
    """Moves files by signed URL. Both raise FileMoveError."""

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        """Appends to `target` from byte `offset` on; returns the whole file's SHA-256 then.

        Starts over if the server does not know ranges. Refuses more than `max_bytes` in the file.
        """

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        """Returns when the server has confirmed size and hash; resumes what it has already."""
