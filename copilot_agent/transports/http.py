"""The conversation over HTTP: one WebSocket, or long polls where WebSockets do not pass."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import MAX_FRAME_BYTES, ManagerFrame, PilotFrame
from copilot_agent.transports.base import Transport, TransportError
from copilot_agent.transports.connections import wait_seconds
from copilot_agent.transports.enrolment import describe
from copilot_agent.transports.parsing import frame_text, parse_frame
from copilot_agent.transports.poll import PollTransport

PING_SECONDS = 20.0
SOCKET_AGAIN_SECONDS = 600.0
SOCKET_TRIES = 2

CLOSE_CODES = {
    4001: TransportTrouble.SUPERSEDED,
    4002: TransportTrouble.TOKEN,
    4003: TransportTrouble.RETIRED,
    4004: TransportTrouble.MALFORMED,
}


class UpgradeRefusedError(TransportError):
    """Something answered the WebSocket's handshake as if it were an ordinary request."""

    def __init__(self, message: str) -> None:
        super().__init__(TransportTrouble.UNREACHABLE, message)


class SocketTransport:
    def __init__(self, session: aiohttp.ClientSession, manager: str) -> None:
        self._session = session
        self._url = manager.rstrip("/") + "/pilot/v1/socket"
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def connect(self, token: str) -> None:
        await self.close()
        try:
            async with asyncio.timeout(PING_SECONDS):
                self._socket = await self._session.ws_connect(
                    self._url,
                    headers={"Authorization": f"Bearer {token}"},
                    heartbeat=PING_SECONDS,
                    max_msg_size=MAX_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                raise TransportError(TransportTrouble.TOKEN, "the token was refused") from error
            if error.status in (429, 503):
                raise TransportError(
                    TransportTrouble.UNREACHABLE,
                    f"the manager is busy: HTTP {error.status}",
                    wait_seconds=wait_seconds(error.headers),
                ) from error
            raise UpgradeRefusedError(f"no WebSocket: HTTP {error.status}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(TransportTrouble.UNREACHABLE, describe(error)) from error

    async def send(self, frame: PilotFrame) -> None:
        socket = self._connected()
        try:
            await socket.send_str(frame_text(frame))
        except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:
            raise TransportError(TransportTrouble.UNREACHABLE, describe(error)) from error

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        socket = self._connected()
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            yield parse_frame(message.data)
        if self._socket is not None:
            raise self._ended(socket)

    def use_token(self, token: str) -> None:
        """The socket was opened with the token of its time; the next one takes the new token."""

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _connected(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is None:
            raise TransportError(TransportTrouble.UNREACHABLE, "not connected")
        return self._socket

    def _ended(self, socket: aiohttp.ClientWebSocketResponse) -> TransportError:
        code = socket.close_code or 1006
        trouble = CLOSE_CODES.get(code, TransportTrouble.UNREACHABLE)
        return TransportError(trouble, f"the connection was closed ({trouble.value}, code {code})")


class HttpTransport:
    """The WebSocket where it passes, otherwise long polls; looks for the socket every 10 min."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        manager: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = SocketTransport(session, manager)
        self._poll = PollTransport(session, manager)
        self._clock = clock
        self._carrier: Transport = self._socket
        self._poll_until = 0.0
        self._failures = 0
        self._token = ""

    @property
    def carrier(self) -> str:
        return "websocket" if self._carrier is self._socket else "long-poll"

    async def connect(self, token: str) -> None:
        self._token = token
        if self._clock() < self._poll_until:
            return await self._use_poll()
        try:
            await self._socket.connect(token)
        except UpgradeRefusedError:
            return await self._use_poll()
        except TransportError as error:
            if error.trouble is not TransportTrouble.UNREACHABLE:
                raise
            self._failures += 1
            if self._failures < SOCKET_TRIES:
                raise
            self._failures = 0
            return await self._use_poll()
        self._carrier = self._socket
        self._failures = 0
        return None

    async def send(self, frame: PilotFrame) -> None:
        await self._carrier.send(frame)

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        if self._carrier is self._socket:
            async for frame in self._socket.frames():
                yield frame
            return
        async for frame in self._poll.frames():
            if self._poll_until < self._clock():
                if await self._socket_passes():
                    await self._poll.close()
                    raise TransportError(TransportTrouble.UNREACHABLE, "WebSockets pass again")
                self._poll_until = self._clock() + SOCKET_AGAIN_SECONDS
            yield frame

    def use_token(self, token: str) -> None:
        self._token = token
        self._carrier.use_token(token)

    async def close(self) -> None:
        await self._carrier.close()

    async def _use_poll(self) -> None:
        self._carrier = self._poll
        await self._poll.connect(self._token)

    async def _socket_passes(self) -> bool:
        if self._poll_until == 0.0:  # it was tried a moment ago
            return False
        try:
            await self._socket.connect(self._token)
        except TransportError:
            return False
        await self._socket.close()
        return True
