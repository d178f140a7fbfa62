"""The resumable PUT, for pilots and users alike."""

from dataclasses import dataclass

from aiohttp import web
from pydantic import ValidationError

from copilot_agent.protocol.base import Bytes, Sha256, Wire
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from job_manager_adapter.api.problems import field_errors
from job_manager_adapter.views import UploadView

HEADERS = ("Upload-Offset", "Upload-Length")


class _Headers(Wire):
    offset: Bytes
    length: Bytes
    sha256: Sha256


@dataclass(frozen=True)
class Part:
    """What a PUT says about its body."""

    offset: int
    length: int
    sha256: str


def read_headers(request: web.Request, sha256: str | None = None) -> Part:
    """Raises `CopilotError` that names the wrong header. `sha256` if the path says it."""
    given = {
        "offset": request.headers.get("Upload-Offset"),
        "length": request.headers.get("Upload-Length"),
        "sha256": sha256 or request.headers.get("Upload-Sha256"),
    }
    try:
        headers = _Headers.model_validate({name: text for name, text in given.items() if text})
    except ValidationError as error:
        raise _wrong_headers(error) from error
    if headers.offset + (request.content_length or 0) > headers.length:
        message = "Upload-Offset and the body go beyond Upload-Length"
        field = FieldError(field="Upload-Length", message=message)
        raise CopilotError(
            message,
            remedy="Upload-Length is the size of the whole file",
            code=ErrorCode.INVALID_REQUEST,
            errors=(field,),
        )
    return Part(headers.offset, headers.length, headers.sha256)


def state_response(state: UploadView) -> web.Response:
    """The answer to HEAD."""
    return web.Response(
        headers={
            "Upload-Offset": str(state.offset),
            "Upload-Complete": "1" if state.complete else "0",
        }
    )


def stored_response(here: int, part: Part) -> web.Response:
    """The answer to PUT: 201 when the file is whole, 204 when more than `here` is due."""
    complete = here == part.length
    return web.Response(
        status=201 if complete else 204,
        headers={"Upload-Offset": str(here), "Upload-Complete": "1" if complete else "0"},
    )


def _wrong_headers(error: ValidationError) -> CopilotError:
    errors = tuple(
        FieldError(field=f"Upload-{item.field.capitalize()}", message=item.message)
        for item in field_errors(error)
    )
    return CopilotError(
        f"header {errors[0].field}: {errors[0].message}",
        remedy="send Upload-Offset, Upload-Length and Upload-Sha256",
        code=ErrorCode.INVALID_REQUEST,
        errors=errors,
    )
