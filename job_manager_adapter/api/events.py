"""The event stream, as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from aiohttp import web
from pydantic import Field, TypeAdapter, ValidationError

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.api.auth import bearer
from job_manager_adapter.api.problems import invalid
from job_manager_adapter.api.route import ALL_ROLES, Call, Route
from job_manager_adapter.views import Event

KEEP_ALIVE_SECONDS = 15.0
_LAST_ID: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=0, le=1 << 62)])


async def events(call: Call[None, None]) -> web.StreamResponse:
    after = _last_id(call.request)
    stream = call.services.events.subscribe(call.principal, after)
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    await response.prepare(call.request)
    await response.write(b"retry: 3000\n\n")
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - always within a task
    call.doors.streams.add(task)
    try:
        await _forward(stream, response, call)
    finally:
        call.doors.streams.discard(task)
    return response


async def _forward(
    stream: AsyncIterator[Event], response: web.StreamResponse, call: Call[None, None]
) -> None:
    """Until the client leaves or its token ends; comments keep proxies from giving up."""
    coming = asyncio.ensure_future(_next(stream))
    now = asyncio.get_running_loop().time
    look = now() + KEEP_ALIVE_SECONDS
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE_SECONDS)
            if now() >= look:
                look = now() + KEEP_ALIVE_SECONDS
                if not await _still_allowed(call):
                    return
            if not done:
                await response.write(b": still here\n\n")
                continue
            event = coming.result()
            if event is None:
                return
            coming = asyncio.ensure_future(_next(stream))
            line = f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
            await response.write(line.encode())
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _still_allowed(call: Call[None, None]) -> bool:
    """A token may be revoked or run out while its stream is open."""
    try:
        await call.services.tokens.authenticate(bearer(call.request))
    except CopilotError:
        return False
    return True


async def _next(stream: AsyncIterator[Event]) -> Event | None:
    return await anext(stream, None)


def _last_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID")
    try:
        return _LAST_ID.validate_python(text) if text else None
    except ValidationError as error:
        raise invalid(error, prefix="Last-Event-ID") from error


ROUTES = (Route("GET", "/api/v1/events", events, "What happens, as server-sent events", ALL_ROLES),)
