"""How `vm-launcher status|pause|…` reach the running launcher: JSON lines on a UNIX socket.

One request and one answer a connection. The socket is 0600 in the launcher's state directory.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from copilot_agent.protocol.base import Line, Strict, Wire
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from vm_launcher.state import Status

_MOST_BYTES = 1 << 20


class ControlError(CopilotError):
    code = ErrorCode.UNAVAILABLE


class Request(Strict):
    command: Literal["status", "pause", "resume", "save", "finish", "undo_finish", "stop"]
    reason: Line = ""


class Answer(Wire):
    ok: bool
    message: Annotated[str, Field(max_length=2000)] = ""
    remedy: Annotated[str, Field(max_length=2000)] = ""
    status: Status | None = None


Handler = Callable[[Request], Awaitable[Answer]]


@contextlib.asynccontextmanager
async def serve(path: Path, handler: Handler) -> AsyncIterator[None]:
    """Answers requests while the block runs; the socket is removed at its end."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: line too long
            line = await reader.readline()
            if line:
                answer = await _answer(line, handler)
                writer.write(answer.model_dump_json().encode() + b"\n")
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    with _short(path) as short:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(short)
        path.chmod(0o600)
    server = await asyncio.start_unix_server(on_connection, sock=listener, limit=_MOST_BYTES)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(line: bytes, handler: Handler) -> Answer:
    try:
        request = Request.model_validate_json(line)
    except ValidationError as error:
        return Answer(ok=False, message=f"not understood: {error.errors()[0]['msg']}")
    try:
        return await handler(request)
    except CopilotError as error:
        return Answer(ok=False, message=error.message, remedy=error.remedy)


def ask(path: Path, request: Request, timeout: float) -> Answer:
    """Raises `ControlError` when no launcher answers within `timeout` seconds."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(timeout)
        try:
            with _short(path) as short:
                connection.connect(short)
            connection.sendall(request.model_dump_json().encode() + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline(_MOST_BYTES)
            return Answer.model_validate_json(line)
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(
                f"no launcher runs on {path.parent}",
                remedy="start one with vm-launcher run, or name its directory with --state",
            ) from None
        except TimeoutError:
            raise ControlError(f"the launcher did not answer within {timeout:.0f} s") from None
        except (OSError, ValidationError) as error:
            raise ControlError(f"the launcher's answer was not understood: {error}") from None


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address, however deep the directory lies."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
