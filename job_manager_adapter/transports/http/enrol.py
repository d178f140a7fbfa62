"""Enrolment and the renewal of access tokens."""

from aiohttp import web
from pydantic import BaseModel

from copilot_agent.protocol.enrolment import (
    ChallengeReply,
    ChallengeRequest,
    EnrolReply,
    EnrolRequest,
    RenewReply,
    RenewRequest,
)
from job_manager_adapter.api.body import read_model
from job_manager_adapter.transports.http.door import PilotDoor

_MOST_ENROL, _MOST_OTHERS = 32 * 1024, 4 * 1024


class EnrolRoutes:
    """`/pilot/v1/enrol`, `/challenge` and `/renew`."""

    def __init__(self, door: PilotDoor) -> None:
        self._door = door

    def add_to(self, application: web.Application) -> None:
        application.router.add_post("/pilot/v1/enrol", self.enrol)
        application.router.add_post("/pilot/v1/challenge", self.challenge)
        application.router.add_post("/pilot/v1/renew", self.renew)

    async def enrol(self, request: web.Request) -> web.Response:
        asked = await read_model(request, EnrolRequest, _MOST_ENROL)
        enrolled = await self._door.pilots.enrol(asked)
        token, expires = self._door.tokens.issue(enrolled.pilot, self._door.now())
        return _json(
            EnrolReply(
                pilot=enrolled.pilot,
                host=enrolled.host,
                access_token=token,
                token_expires=expires,
                server_time=enrolled.server_time,
                policy=enrolled.policy,
                manager_key=enrolled.manager_key,
                xmpp=self._door.xmpp,
            )
        )

    async def challenge(self, request: web.Request) -> web.Response:
        asked = await read_model(request, ChallengeRequest, _MOST_OTHERS)
        nonce = await self._door.pilots.challenge(asked.pilot)
        return _json(ChallengeReply(nonce=nonce, server_time=self._door.now()))

    async def renew(self, request: web.Request) -> web.Response:
        asked = await read_model(request, RenewRequest, _MOST_OTHERS)
        policy = await self._door.pilots.renew(asked.pilot, asked.nonce, asked.signature)
        now = self._door.now()
        token, expires = self._door.tokens.issue(asked.pilot, now)
        return _json(
            RenewReply(
                access_token=token,
                token_expires=expires,
                server_time=now,
                policy=policy,
                xmpp=self._door.xmpp,
            )
        )


def _json(model: BaseModel) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")
