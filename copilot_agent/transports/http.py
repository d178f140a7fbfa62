"""The conversation over a WebSocket."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import MAX_FRAME_BYTES, ManagerFrame, PilotFrame
from copilot_agent.transports.base import NotOfferedError, TransportError
from copilot_agent.transports.connections import wait_seconds
from copilot_agent.transports.enrolment import describe
from copilot_agent.transports.parsing import frame_text, parse_frame

PING_SECONDS = 20.0

CLOSE_CODES = {
    4001: TransportTrouble.SUPERSEDED,
    4002: TransportTrouble.TOKEN,
    4003: TransportTrouble.RETIRED,
    4004: TransportTrouble.MALFORMED,
}


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
            # something answered the handshake as if it were an ordinary request
            raise NotOfferedError(f"no WebSocket: HTTP {error.status}") from error
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
