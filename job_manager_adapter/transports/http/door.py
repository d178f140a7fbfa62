"""What the pilots' routes have in common."""

import asyncio
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from copilot_agent.protocol.frames import MAX_FRAME_BYTES
from copilot_agent.protocol.xmpp import XmppAddress
from job_manager_adapter.services.files import FileService
from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.transports.http.tokens import AccessTokens
from job_manager_adapter.transports.pace import Paces

Count = Callable[[str], None]


def _ignore(_: str) -> None:
    """Counts nothing."""


@dataclass
class PilotDoor:
    """The manager as pilots see it."""

    pilots: Pilots
    files: FileService
    tokens: AccessTokens
    count_frame: Count = _ignore
    """Told the carrier of every frame that comes in."""
    count_bytes: Callable[[str, int], None] = lambda _direction, _bytes: None
    ping_seconds: float = 30.0
    max_frame: int = MAX_FRAME_BYTES
    first_frame_seconds: float = 15.0
    attaches: Paces = field(default_factory=lambda: Paces(rate=1, burst=60))
    """Each costs reads of the database and an entry in the journal."""
    polls_pace: Paces = field(default_factory=lambda: Paces(rate=20, burst=200))
    sockets: "weakref.WeakSet[web.WebSocketResponse]" = field(default_factory=weakref.WeakSet)
    xmpp: XmppAddress | None = None
    """Where pilots may talk to this manager over XMPP."""
    polls: "set[asyncio.Task[Any]]" = field(default_factory=set)

    def now(self) -> float:
        return time.time()
