"""The conversation by long polling, where WebSockets don't pass."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.frames import PilotFrame
from job_manager_adapter.api.auth import bearer
from job_manager_adapter.api.body import read_model
from job_manager_adapter.transports.http.door import PilotDoor
from job_manager_adapter.transports.pace import FRAMES_PER_JOB

LONGEST_WAIT = 25.0
LOOK_SECONDS = 5.0
"""How often it is seen whether the pilot still waits."""


class PollRoute:
    """`POST /pilot/v1/frames`."""

    def __init__(self, door: PilotDoor) -> None:
        self._door = door

    def add_to(self, application: web.Application) -> None:
        application.router.add_post("/pilot/v1/frames", self.serve)

    async def serve(self, request: web.Request) -> web.Response:
        pilot = self._door.tokens.pilot(bearer(request))
        wait = _wait(request)
        frame = await read_model(request, PilotFrame, self._door.max_frame)
        self._door.count_frame("poll")
        await self._door.polls_pace.keep(pilot)
        if frame.session is None:
            await self._door.attaches.keep(pilot)
            session = await self._door.pilots.attach(pilot, "poll")
        else:
            session = self._door.pilots.session(pilot, frame.session)
        session.receive(frame)
        self._door.polls_pace.forgive(pilot, FRAMES_PER_JOB * session.newly_accepted())
        reply = session.ready()
        if reply is None and wait:
            reply = await self._waiting(request, session.next_text(wait))
        if reply is None:
            return web.Response(status=204)
        return web.Response(body=reply.encode(), content_type="application/json")

    async def _waiting(
        self, request: web.Request, answer: Coroutine[Any, Any, str | None]
    ) -> str | None:
        """Waits until the pilot hangs up or the manager stops."""
        task = asyncio.create_task(answer)
        self._door.polls.add(task)
        try:
            while not task.done() and request.transport and not request.transport.is_closing():
                await asyncio.wait({task}, timeout=LOOK_SECONDS)
        finally:
            self._door.polls.discard(task)
            task.cancel()
        if not task.done() or task.cancelled():
            raise CopilotError(
                "the manager is stopping",
                remedy="attach again with a back-off",
                code=ErrorCode.UNAVAILABLE,
            )
        return task.result()


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        field = FieldError(field="wait", message="must be a number of seconds from 0 to 3600")
        raise CopilotError(
            f"wait: {field.message}",
            remedy=f"at most {LONGEST_WAIT:g} s are waited",
            code=ErrorCode.INVALID_REQUEST,
            errors=(field,),
        )
    return min(seconds, LONGEST_WAIT)
