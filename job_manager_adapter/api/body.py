"""Reading bodies from clients that may be slow on purpose."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.api.problems import invalid

Model = TypeVar("Model", bound=BaseModel)

SILENCE_SECONDS = 30.0
GRACE_SECONDS = 20.0
LEAST_RATE = 1024
"""Bytes a second, on average, after the grace."""


async def paced(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TimeoutError when the client falls silent or dawdles."""
    loop = asyncio.get_running_loop()
    start, received = loop.time(), 0
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            data = await request.content.readany()
        if not data:
            return
        received += len(data)
        if loop.time() - start > GRACE_SECONDS + received / LEAST_RATE:
            raise TimeoutError
        yield data


async def read_body(request: web.Request, most: int) -> bytes:
    """The whole body. Raises TimeoutError, or `CopilotError` (too_large, invalid_request)."""
    if "Content-Encoding" in request.headers:
        raise CopilotError(
            "compressed bodies are not accepted",
            remedy="leave Content-Encoding out",
            code=ErrorCode.INVALID_REQUEST,
        )
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if request.content.is_eof():  # it came with its head, so nobody has to be waited for
        return _at_once(request, most)
    body = bytearray()
    async for data in paced(request):
        body += data
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _at_once(request: web.Request, most: int) -> bytes:
    body = request.content.read_nowait()
    if len(body) > most:
        raise _too_large(most)
    return body


async def read_model(request: web.Request, model: type[Model], most: int) -> Model:
    """The body as a model. Raises `CopilotError` that names the wrong fields."""
    try:
        return model.model_validate_json(await read_body(request, most))
    except ValidationError as error:
        raise invalid(error) from error


def _too_large(most: int) -> CopilotError:
    return CopilotError(
        f"the request's body is over {most} bytes",
        remedy="send fewer items at once",
        code=ErrorCode.TOO_LARGE,
    )
