"""Stable error codes, and problem+json (RFC 9457) as the form in which they travel over HTTP."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from copilot_agent.protocol.base import Wire


class ErrorCode(StrEnum):
    """Codes never change their meaning."""

    INVALID_REQUEST = "invalid_request"  #: a field is malformed; `errors` names each
    TOO_LARGE = "too_large"  #: a body, a file or a batch is over its bound
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  #: the thing is in a state that does not allow this
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"  #: the same key came with another request
    UNKNOWN_EXPERIMENT = "unknown_experiment"
    UNAUTHENTICATED = "unauthenticated"  #: no token, or one that is malformed or forged
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, no secret
    FORBIDDEN = "forbidden"  #: the token's role does not allow this
    ENROLMENT_REFUSED = "enrolment_refused"  #: secret unknown, expired or bound to another launcher
    HOST_BANNED = "host_banned"
    SESSION_SUPERSEDED = "session_superseded"  #: a newer attach of the same pilot took over
    PILOT_RETIRED = "pilot_retired"
    PROTOCOL_VERSION = "protocol_version"
    LINK_EXPIRED = "link_expired"  #: a signed URL ran out; ask for a fresh one
    LINK_INVALID = "link_invalid"
    HASH_MISMATCH = "hash_mismatch"
    OFFSET_MISMATCH = "offset_mismatch"  #: an upload goes on at another byte; the reply says which
    NO_SPACE = "no_space"
    UNAVAILABLE = "unavailable"  #: shutting down or overloaded; Retry-After says when to come back
    INTERNAL = "internal"


class FieldError(Wire):
    """One field that was refused, where it is (dotted path), and what would be right."""

    field: Annotated[str, Field(max_length=500)]
    message: Annotated[str, Field(max_length=1000)]


class Problem(Wire):
    """Body of every HTTP error, `application/problem+json`."""

    type: Annotated[str, Field(max_length=300)] = "about:blank"
    title: Annotated[str, Field(max_length=300)]
    status: Annotated[int, Field(ge=400, le=599)]
    code: Annotated[str, Field(max_length=64)]
    detail: Annotated[str, Field(max_length=4000)] = ""
    remedy: Annotated[str, Field(max_length=1000)] = ""
    errors: Annotated[list[FieldError], Field(max_length=100)] = []


class CopilotError(Exception):
    """Root of our errors: what happened, and what to do about it.

    Transports turn it into a `Problem`, command lines into a line on stderr.
    """

    code = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        code: ErrorCode | None = None,
        errors: tuple[FieldError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.errors = errors
        if code is not None:
            self.code = code
