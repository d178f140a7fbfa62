"""A conversation within one process, for tests and simulations; frames still travel as JSON."""

import asyncio
from collections.abc import AsyncIterator

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.parsing import frame_text, parse_frame


class MemoryServer:
    """The manager's end: what tokens it takes, what it hears, what it says."""

    def __init__(self, tokens: frozenset[str] = frozenset({"token"})) -> None:
        self.tokens = tokens
        self.reachable = True
        self.received: asyncio.Queue[PilotFrame] = asyncio.Queue()
        self._down: asyncio.Queue[str | TransportError | None] = asyncio.Queue()
        self._open = False

    def say(self, frame: ManagerFrame) -> None:
        """Lost if nobody is connected."""
        if self._open:
            self._down.put_nowait(frame.model_dump_json())

    def hang_up(self, trouble: TransportTrouble = TransportTrouble.UNREACHABLE) -> None:
        if self._open:
            self._open = False
            self._down.put_nowait(TransportError(trouble, f"hung up: {trouble.value}"))

    def accept(self, token: str) -> asyncio.Queue[str | TransportError | None]:
        if not self.reachable:
            raise TransportError(TransportTrouble.UNREACHABLE, "nobody listens")
        if token not in self.tokens:
            raise TransportError(TransportTrouble.TOKEN, "the token was refused")
        self.hang_up(TransportTrouble.SUPERSEDED)
        self._down = asyncio.Queue()
        self._open = True
        return self._down

    def hear(self, text: str, down: asyncio.Queue[str | TransportError | None]) -> None:
        if not self._open or down is not self._down:
            raise TransportError(TransportTrouble.UNREACHABLE, "the connection is gone")
        self.received.put_nowait(PilotFrame.model_validate_json(text))


class MemoryTransport:
    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._down: asyncio.Queue[str | TransportError | None] | None = None

    async def connect(self, token: str) -> None:
        await self.close()
        self._down = self._server.accept(token)

    async def send(self, frame: PilotFrame) -> None:
        self._server.hear(frame_text(frame), self._connected())

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        down = self._connected()
        while (item := await down.get()) is not None:
            if isinstance(item, TransportError):
                raise item
            yield parse_frame(item)

    def use_token(self, token: str) -> None:
        """Tokens are looked at when a connection is made."""

    async def close(self) -> None:
        down, self._down = self._down, None
        if down is not None:
            down.put_nowait(None)

    def _connected(self) -> asyncio.Queue[str | TransportError | None]:
        if self._down is None:
            raise TransportError(TransportTrouble.UNREACHABLE, "not connected")
        return self._down
