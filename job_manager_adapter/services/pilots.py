"""Use cases of pilots: enrolment, renewal, the conversation, and what operators do with them."""

from dataclasses import dataclass
from typing import Literal

from copilot_agent.protocol.enrolment import EnrolRequest
from copilot_agent.protocol.frames import Policy
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.views import DrainRequest, Page, PilotState, PilotView

Carrier = Literal["websocket", "poll"]


@dataclass(frozen=True)
class Enrolled:
    """The caller adds the access token (JWT, sub = pilot) to make an EnrolReply."""

    pilot: str
    host: str
    policy: Policy
    manager_key: str
    server_time: float


class Pilots:
    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Raises RefusedError with `enrolment_refused` or `host_banned`."""
        raise NotImplementedError

    async def challenge(self, pilot: str) -> str:
        """A nonce, good for one renewal within 5 minutes. Raises UnauthenticatedError."""
        raise NotImplementedError

    async def renew(self, pilot: str, nonce: str, signature: str) -> Policy:
        """Checks the pilot's signature; the caller then mints a token.

        Raises UnauthenticatedError, or RefusedError with `pilot_retired` or `host_banned`.
        """
        raise NotImplementedError

    async def attach(self, pilot: str, carrier: Carrier) -> PilotSession:
        """A new session; an older one of the same pilot is closed as superseded.

        Raises UnauthenticatedError for an unknown pilot, RefusedError with `pilot_retired` or
        `host_banned`.
        """
        raise NotImplementedError

    def session(self, pilot: str, number: int) -> PilotSession:
        """The open session of that number, for carriers without a connection (long-poll).

        Raises SessionClosedError when a newer one exists or there is none (attach again).
        """
        raise NotImplementedError

    async def get(self, principal: Principal, pilot: str) -> PilotView:
        raise NotImplementedError

    async def list(
        self,
        principal: Principal,
        state: PilotState | None = None,
        host: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[PilotView]:
        """Newest first."""
        raise NotImplementedError

    async def drain(self, principal: Principal, pilot: str, request: DrainRequest) -> PilotView:
        raise NotImplementedError

    async def retire(self, principal: Principal, pilot: str) -> PilotView:
        raise NotImplementedError
