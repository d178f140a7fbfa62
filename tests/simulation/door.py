"""The manager's end of the carriers: what transports/http does, over simulated wires.

Every frame is decoded and encoded by the real protocol code.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from copilot_agent.protocol.enrolment import (
    ChallengeReply,
    ChallengeRequest,
    EnrolReply,
    EnrolRequest,
    RenewReply,
    RenewRequest,
)
from copilot_agent.protocol.errors import CopilotError, ErrorCode, Problem
from copilot_agent.protocol.frames import PilotFrame
from copilot_agent.protocol.xmpp import XmppAddress
from job_manager_adapter.api.problems import STATUS
from job_manager_adapter.services.build import Services
from job_manager_adapter.services.session import PilotSession
from tests.simulation.loop import Machine
from tests.simulation.session import Request, Socket

TOKEN_SECONDS = 3600.0
LOOK_SECONDS = 5.0
"""Within these it is noticed that a client that waits has hung up."""
_CLOSE_CODES = {
    ErrorCode.SESSION_SUPERSEDED: 4001,
    ErrorCode.UNAUTHENTICATED: 4002,
    ErrorCode.TOKEN_EXPIRED: 4002,
    ErrorCode.PILOT_RETIRED: 4003,
    ErrorCode.HOST_BANNED: 4003,
    ErrorCode.INVALID_REQUEST: 4004,
}


class Door:
    """Of one manager process; `heard` is told each frame and its pilot, `stored` each upload."""

    def __init__(
        self,
        machine: Machine,
        services: Services,
        heard: Callable[[str, PilotFrame], None],
        stored: Callable[[str], None],
        xmpp: XmppAddress | None,
    ) -> None:
        self._machine = machine
        self._services = services
        self._heard = heard
        self._stored = stored
        self._xmpp = xmpp
        self._open: list[Callable[[], None]] = []
        """For each connection and request: how its client learns that the process is dead."""

    def died(self) -> None:
        for learn in self._open:
            learn()

    # ----- tokens: what the manager's wall clock makes of them

    def _issue(self, pilot: str) -> tuple[str, float]:
        expires = self._machine.clock.time() + TOKEN_SECONDS
        return f"{pilot}.{expires:.3f}", expires

    def _pilot(self, token: str) -> str:
        pilot, _, expires = token.partition(".")
        if float(expires) < self._machine.clock.time():
            raise CopilotError("the token has expired", code=ErrorCode.TOKEN_EXPIRED)
        return pilot

    # ----- WebSocket

    def accept(self, socket: Socket) -> None:
        inbox: asyncio.Queue[str | None] = asyncio.Queue()
        socket.to_server = lambda item: self._machine.tell(inbox, item)
        learn = lambda: socket.down.send(None)  # noqa: E731
        self._open.append(learn)
        self._machine.spawn(self._serve(socket, inbox, learn))

    async def _serve(
        self, socket: Socket, inbox: "asyncio.Queue[str | None]", learn: Callable[[], None]
    ) -> None:
        try:
            await self._converse(socket, inbox, self._pilot(socket.token))
            socket.down.send(None)
        except CopilotError as error:
            socket.down.send(_CLOSE_CODES.get(error.code, 1012))
        finally:
            self._open.remove(learn)

    async def _converse(
        self, socket: Socket, inbox: "asyncio.Queue[str | None]", pilot: str
    ) -> None:
        first = await inbox.get()
        if first is None:
            return
        session = await self._services.pilots.attach(pilot, "websocket")
        self._receive(session, first)
        directions = {
            self._machine.spawn(self._read(session, inbox)),
            self._machine.spawn(_write(session, socket)),
        }
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            session.detach()
            await asyncio.gather(*directions, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self, session: PilotSession, inbox: "asyncio.Queue[str | None]") -> None:
        while (text := await inbox.get()) is not None:
            self._receive(session, text)

    def _receive(self, session: PilotSession, text: str | bytes) -> None:
        frame = _parse(PilotFrame, text)
        session.receive(frame)
        self._heard(session.pilot, frame)

    # ----- requests

    def request(self, request: Request, lost: Callable[[float], None]) -> None:
        learn = lambda: lost(0.02)  # noqa: E731
        self._open.append(learn)
        self._machine.spawn(self._handle(request, learn))

    async def _handle(self, request: Request, learn: Callable[[], None]) -> None:
        try:
            status, body = await self._route(request)
        except CopilotError as error:
            status = STATUS[error.code]
            problem = Problem(title=error.message[:300], status=status, code=error.code.value)
            body = problem.model_dump_json().encode()
        finally:
            self._open.remove(learn)
        request.answer(status, body)

    async def _route(self, request: Request) -> tuple[int, bytes]:
        match request.path:
            case "/pilot/v1/frames":
                return await self._frames(request)
            case "/pilot/v1/enrol":
                return 200, await self._enrol(_parse(EnrolRequest, request.body))
            case "/pilot/v1/challenge":
                asked = _parse(ChallengeRequest, request.body)
                nonce = await self._services.pilots.challenge(asked.pilot)
                reply = ChallengeReply(nonce=nonce, server_time=self._machine.clock.time())
                return 200, reply.model_dump_json().encode()
            case "/pilot/v1/renew":
                return 200, await self._renew(_parse(RenewRequest, request.body))
            case _:
                self._stored(request.path)
                return 200, b""

    async def _frames(self, request: Request) -> tuple[int, bytes]:
        pilot = self._pilot(request.token)
        frame = _parse(PilotFrame, request.body)
        if frame.session is None:
            session = await self._services.pilots.attach(pilot, "poll")
        else:
            session = self._services.pilots.session(pilot, frame.session)
        session.receive(frame)
        self._heard(pilot, frame)
        answer = self._machine.spawn(session.next_text(min(request.wait, 25.0)))
        universe = self._machine.universe
        request.noticed = lambda: universe.after(
            universe.random.uniform(0.0, LOOK_SECONDS), self._machine.call, answer.cancel
        )
        if request.gone:
            request.noticed()
        await asyncio.wait({answer})
        if answer.cancelled():
            return 503, b""
        reply = answer.result()
        return (204, b"") if reply is None else (200, reply.encode())

    async def _enrol(self, asked: EnrolRequest) -> bytes:
        enrolled = await self._services.pilots.enrol(asked)
        token, expires = self._issue(enrolled.pilot)
        reply = EnrolReply(
            pilot=enrolled.pilot,
            host=enrolled.host,
            access_token=token,
            token_expires=expires,
            server_time=enrolled.server_time,
            policy=enrolled.policy,
            manager_key=enrolled.manager_key,
            xmpp=self._xmpp,
        )
        return reply.model_dump_json().encode()

    async def _renew(self, asked: RenewRequest) -> bytes:
        policy = await self._services.pilots.renew(asked.pilot, asked.nonce, asked.signature)
        token, expires = self._issue(asked.pilot)
        now = self._machine.clock.time()
        reply = RenewReply(
            access_token=token,
            token_expires=expires,
            server_time=now,
            policy=policy,
            xmpp=self._xmpp,
        )
        return reply.model_dump_json().encode()


async def _write(session: PilotSession, socket: Socket) -> None:
    while True:
        text = await session.next_text()
        if text is not None:
            socket.down.send(text)


def _parse(model: Any, text: str | bytes) -> Any:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise CopilotError(str(error), code=ErrorCode.INVALID_REQUEST) from error
