"""Why an enrolment is refused; for every database."""

from collections.abc import Sequence
from typing import Any

from copilot_agent.protocol.errors import ErrorCode
from job_manager_adapter.store.fleet_records import Enrolled


def refused(reason: str, code: ErrorCode = ErrorCode.ENROLMENT_REFUSED) -> Enrolled:
    return Enrolled(code, reason)


def check_secret(enrolment: Sequence[Any] | None, at: float) -> Enrolled | None:
    """Its columns: id, label, expires_at, launchers_allowed, revoked."""
    if enrolment is None:
        return refused("unknown secret")
    _, _, expires_at, _, revoked = enrolment
    if revoked:
        return refused("the secret was revoked")
    if at >= expires_at:
        return refused("the secret has expired")
    return None


def check_key(used: object) -> Enrolled | None:
    """`used`: a pilot of this launcher that has been heard of had the same key.

    So nobody supersedes a pilot by saying again what was said at its enrolment.
    """
    if used is None:
        return None
    return refused("this pilot's key was enrolled before", ErrorCode.CONFLICT)


def check_host(host: Sequence[Any] | None) -> Enrolled | None:
    """Its columns: id, banned, ban_reason."""
    if host is not None and host[1]:
        return refused(f"the host is banned: {host[2] or 'no reason given'}", ErrorCode.HOST_BANNED)
    return None
