"""The conversation over a WebSocket."""

import asyncio
import logging

from aiohttp import WSMessage, WSMsgType, web

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.frames import PilotFrame
from job_manager_adapter.api.auth import bearer
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.transports.http.door import PilotDoor
from job_manager_adapter.transports.pace import FRAMES_PER_JOB, Pace
from job_manager_adapter.transports.parsing import malformed, parse_frame

log = logging.getLogger(__name__)

GOING_AWAY = 1012
SUPERSEDED, TOKEN, STOP, MALFORMED = 4001, 4002, 4003, 4004
_CLOSE_CODES = {
    ErrorCode.SESSION_SUPERSEDED: SUPERSEDED,
    ErrorCode.UNAUTHENTICATED: TOKEN,
    ErrorCode.TOKEN_EXPIRED: TOKEN,
    ErrorCode.PILOT_RETIRED: STOP,
    ErrorCode.HOST_BANNED: STOP,
    ErrorCode.UNAVAILABLE: GOING_AWAY,
    ErrorCode.INVALID_REQUEST: MALFORMED,
    ErrorCode.PROTOCOL_VERSION: MALFORMED,
}
_MOST_REASON = 120
FRAMES_PER_SECOND, FRAME_BURST = 20.0, 200
"""Beyond this, and what its finished jobs earn it, a pilot is read more slowly."""


class SocketRoute:
    """`GET /pilot/v1/socket`."""

    def __init__(self, door: PilotDoor) -> None:
        self._door = door

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/pilot/v1/socket", self.serve)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Refusals come as close codes: a failed upgrade would look like a bad proxy."""
        socket = web.WebSocketResponse(
            heartbeat=self._door.ping_seconds, max_msg_size=self._door.max_frame, compress=False
        )
        await socket.prepare(request)
        self._door.sockets.add(socket)
        try:
            await self._converse(socket, self._door.tokens.pilot(bearer(request)))
        except CopilotError as error:
            await _close(socket, error)
        return socket

    async def _converse(self, socket: web.WebSocketResponse, pilot: str) -> None:
        session = await self._attach(socket, pilot)
        if session is None:
            return
        listening = asyncio.create_task(self._listen(socket, session))
        try:
            await _speak(socket, session)
        finally:
            heard_all = listening.done()
            listening.cancel()
            session.detach()
            await asyncio.wait((listening,))
            if heard_all:
                listening.result()

    async def _attach(self, socket: web.WebSocketResponse, pilot: str) -> PilotSession | None:
        """After the first frame; `None` if there comes none any more."""
        try:
            async with asyncio.timeout(self._door.first_frame_seconds):
                first = self._frame(await socket.receive())
        except TimeoutError as error:
            raise malformed("no frame came") from error
        if first is None:
            return None
        await self._door.attaches.keep(pilot)
        session = await self._door.pilots.attach(pilot, "websocket")
        try:
            session.receive(first)
        except CopilotError:
            session.detach()
            raise
        return session

    async def _listen(self, socket: web.WebSocketResponse, session: PilotSession) -> None:
        """To the end of what the pilot says, with which the session ends."""
        loop, pace = asyncio.get_running_loop(), Pace(FRAMES_PER_SECOND, FRAME_BURST)
        try:
            while self._hear(session, await socket.receive()):
                pace.forgive(FRAMES_PER_JOB * session.newly_accepted())
                if delay := pace.delay(loop.time()):
                    await asyncio.sleep(delay)
        finally:
            session.detach()

    def _hear(self, session: PilotSession, message: WSMessage) -> bool:
        """False at the end. No frame stays in memory while the next one is waited for."""
        frame = self._frame(message)
        if frame is not None:
            session.receive(frame)
        return frame is not None

    def _frame(self, message: WSMessage) -> PilotFrame | None:
        """`None` at the end. Raises `CopilotError` for a malformed one."""
        if message.type is WSMsgType.TEXT:
            self._door.count_frame("websocket")
            return parse_frame(message.data)
        if message.type is WSMsgType.BINARY:
            raise malformed("frames are text messages")
        return None


async def _speak(socket: web.WebSocketResponse, session: PilotSession) -> None:
    """Sends what the session has to say. Raises `CopilotError` when it is over."""
    try:
        while True:
            text = await session.next_text()
            if text is not None:
                await socket.send_str(text)
    except ConnectionError:
        log.debug("pilot %s: the socket broke", session.pilot)


async def _close(socket: web.WebSocketResponse, error: CopilotError) -> None:
    code = _CLOSE_CODES.get(error.code, GOING_AWAY)
    reason = error.message.encode()[:_MOST_REASON].decode("utf-8", "ignore")
    await socket.close(code=code, message=reason.encode())
