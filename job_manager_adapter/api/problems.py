"""Every error as `application/problem+json`, none with a traceback in it."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError, Problem
from copilot_agent.protocol.words import dotted, in_words

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.IDEMPOTENCY_CONFLICT: 409,
    ErrorCode.UNKNOWN_EXPERIMENT: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.TOKEN_EXPIRED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.ENROLMENT_REFUSED: 403,
    ErrorCode.HOST_BANNED: 403,
    ErrorCode.SESSION_SUPERSEDED: 409,
    ErrorCode.PILOT_RETIRED: 403,
    ErrorCode.PROTOCOL_VERSION: 400,
    ErrorCode.LINK_EXPIRED: 403,
    ErrorCode.LINK_INVALID: 403,
    ErrorCode.HASH_MISMATCH: 422,
    ErrorCode.OFFSET_MISMATCH: 409,
    ErrorCode.NO_SPACE: 507,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}
_MOST_ERRORS = 100
_REMEDIES = {
    404: "the address is not one of ours; /api/openapi.json lists them",
    405: "use one of the methods in the Allow header",
    413: "send less at once",
}
_CODES = {
    404: ErrorCode.NOT_FOUND,
    413: ErrorCode.TOO_LARGE,
    503: ErrorCode.UNAVAILABLE,
}


def field_errors(error: ValidationError, prefix: str = "") -> tuple[FieldError, ...]:
    """One entry per wrong field, `jobs[0].inputs[1].sha256`; what came is not repeated."""
    found = error.errors(include_url=False, include_input=False)
    places = [item["loc"] for item in found]
    return tuple(
        FieldError(
            field=_one_line(prefix + dotted(item["loc"]), 500) or "(body)", message=_plain(item)
        )
        for item in found[: 2 * _MOST_ERRORS]
        if not _follows(item["type"], item["loc"], places)
    )[:_MOST_ERRORS]


def invalid(error: ValidationError, prefix: str = "") -> CopilotError:
    """A refused body or query."""
    errors = field_errors(error, prefix)
    return CopilotError(
        f"{error.error_count()} field(s) are not as they must be, the first: "
        f"{errors[0].field}: {errors[0].message}",
        remedy="correct the named fields; nothing was stored",
        code=ErrorCode.INVALID_REQUEST,
        errors=errors,
    )


def problem_response(error: CopilotError, headers: Mapping[str, str] = {}) -> web.Response:
    """The error as a response; `offset_mismatch` also says where to go on."""
    status = STATUS[error.code]
    extra = dict(headers)
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if status == 503:
        extra.setdefault("Retry-After", "5")
    if (offset := getattr(error, "offset", None)) is not None:
        extra["Upload-Offset"] = str(offset)
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=error.code,
        detail=printable(error.message, 4000),
        remedy=printable(error.remedy, 1000),
        errors=list(error.errors[:_MOST_ERRORS]),
    )
    return web.Response(
        status=status,
        body=problem.model_dump_json().encode(),
        content_type="application/problem+json",
        headers=extra,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever goes wrong into a problem."""
    try:
        return await handler(request)
    except CopilotError as error:
        return problem_response(error)
    except ValidationError as error:
        return _unexpected(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _from_http(error)
    except ConnectionError:
        raise
    except TimeoutError:
        return problem_response(_too_slow(), {"Connection": "close"})
    except Exception as error:  # noqa: BLE001 - the last line of defence, it is logged
        return _unexpected(error)


def _too_slow() -> CopilotError:
    return CopilotError(
        "the request's body came too slowly",
        remedy="go on from where it was cut; HEAD says how much is here",
        code=ErrorCode.UNAVAILABLE,
    )


def printable(text: str, most: int) -> str:
    """Text for people: control and direction characters made visible, bounded."""
    shown = "".join(char if _harmless(char) else f"\\u{ord(char):04x}" for char in text[:most])
    return shown[:most]


def _one_line(text: str, most: int) -> str:
    return printable(text, most).replace("\n", "\\n")[:most]


def _harmless(char: str) -> bool:
    return char.isprintable() or char == "\n"


def _from_http(error: web.HTTPException) -> web.Response:
    code = _CODES.get(error.status, ErrorCode.INVALID_REQUEST)
    keep = {name: value for name, value in error.headers.items() if name == "Allow"}
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=code,
        detail=printable(error.reason or "", 1000),
        remedy=_REMEDIES.get(error.status, ""),
    )
    return web.Response(
        status=error.status,
        body=problem.model_dump_json().encode(),
        content_type="application/problem+json",
        headers=keep,
    )


def _unexpected(error: Exception) -> web.Response:
    number = secrets.token_hex(4)
    log.error("unexpected error %s", number, exc_info=error)
    return problem_response(
        CopilotError(
            f"the manager made a mistake; its log says more under {number}",
            remedy=f"try again; if it persists, give the operator the number {number}",
        )
    )


def _follows(kind: str, place: tuple[Any, ...], places: Sequence[tuple[Any, ...]]) -> bool:
    """A list "too short" only because its wrong items were left out says nothing."""
    return kind == "too_short" and any(
        len(other) > len(place) and other[: len(place)] == place for other in places
    )


def _plain(item: ErrorDetails) -> str:
    message = _one_line(in_words(item), 900)
    hint = _HINTS.get(str(item["type"]))
    return f"{message}; {hint}" if hint else message


_HINTS = {
    "extra_forbidden": "leave the field out, or correct its name",
    "missing": "add the field",
    "json_invalid": "send one JSON object in UTF-8",
    "string_too_long": "shorten it",
    "too_long": "send fewer items at once",
}
