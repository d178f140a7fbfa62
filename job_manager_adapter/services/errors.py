"""Errors that services raise, by what the caller can do about them."""

from copilot_agent.protocol.errors import CopilotError, ErrorCode


class NotFoundError(CopilotError):
    code = ErrorCode.NOT_FOUND


class ForbiddenError(CopilotError):
    code = ErrorCode.FORBIDDEN


class ConflictError(CopilotError):
    code = ErrorCode.CONFLICT


class InvalidError(CopilotError):
    """`errors` names each field."""

    code = ErrorCode.INVALID_REQUEST


class UnauthenticatedError(CopilotError):
    code = ErrorCode.UNAUTHENTICATED


class RefusedError(CopilotError):
    """A pilot is refused; `code` says whether it may come again."""

    code = ErrorCode.ENROLMENT_REFUSED


class SessionClosedError(CopilotError):
    """The session is over: superseded, retired, banned or unknown, see `code`."""

    code = ErrorCode.SESSION_SUPERSEDED
