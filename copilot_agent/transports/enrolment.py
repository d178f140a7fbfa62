"""Enrolment and token renewal, always over HTTP."""

from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.enrolment import (
    ChallengeReply,
    ChallengeRequest,
    EnrolReply,
    EnrolRequest,
    RenewReply,
    RenewRequest,
)
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.connections import RefusedError, read_bounded, refusal, wait_seconds

Reply = TypeVar("Reply", bound=BaseModel)

FINAL = frozenset(
    {
        ErrorCode.ENROLMENT_REFUSED,
        ErrorCode.HOST_BANNED,
        ErrorCode.PILOT_RETIRED,
        ErrorCode.PROTOCOL_VERSION,
    }
)
"""With these there is no point in coming back."""


class KeyUsedError(TransportError):
    """The pilot's key was enrolled before; another one will do."""


class EnrolmentClient:
    """Every call raises TransportError: RETIRED for a refusal for good, TOKEN, UNREACHABLE."""

    def __init__(self, session: aiohttp.ClientSession, manager: str) -> None:
        self._session = session
        self._base = manager.rstrip("/") + "/pilot/v1/"

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        return await self._post("enrol", request, EnrolReply)

    async def challenge(self, pilot: str) -> ChallengeReply:
        return await self._post("challenge", ChallengeRequest(pilot=pilot), ChallengeReply)

    async def renew(self, request: RenewRequest) -> RenewReply:
        return await self._post("renew", request, RenewReply)

    async def _post(self, name: str, body: BaseModel, reply: type[Reply]) -> Reply:
        try:
            async with self._session.post(
                self._base + name,
                data=body.model_dump_json().encode(),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                if response.status not in (200, 201):
                    raise await refusal(response)
                return reply.model_validate_json(await read_bounded(response))
        except RefusedError as error:
            if error.problem.code == ErrorCode.CONFLICT:
                raise KeyUsedError(TransportTrouble.UNREACHABLE, f"{name}: {error}") from error
            raise TransportError(
                _trouble(error), f"{name}: {error}", wait_seconds=wait_seconds(error.headers)
            ) from error
        except ValidationError as error:
            text = f"{name}: the reply is malformed ({error.error_count()} errors)"
            raise TransportError(TransportTrouble.MALFORMED, text) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(TransportTrouble.UNREACHABLE, describe(error)) from error


def _trouble(error: RefusedError) -> TransportTrouble:
    if error.problem.code in FINAL:
        return TransportTrouble.RETIRED
    if error.problem.status == 401:
        return TransportTrouble.TOKEN
    if error.problem.status in (400, 413, 422):
        return TransportTrouble.MALFORMED
    return TransportTrouble.UNREACHABLE


def describe(error: BaseException) -> str:
    """A short text for people, also of errors that have none of their own."""
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror is None:
        error = error.os_error  # a dialer's own words, which the connector's text leaves out
    return str(error) or type(error).__name__
