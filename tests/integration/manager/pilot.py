"""A pilot reduced to its conversation: keys, enrolment, frames, uploads."""

import hashlib
import time
from base64 import urlsafe_b64encode
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.enrolment import (
    EnrolReply,
    EnrolRequest,
    enrolment_statement,
    renewal_statement,
)
from copilot_agent.protocol.frames import (
    Held,
    ManagerFrame,
    Offer,
    PilotFrame,
    Report,
    Wants,
)
from copilot_agent.protocol.job import Outcome, Output, Phase, Usage


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An Ed25519 key as the contracts want it."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = encode(self._key.public_key().public_bytes_raw())

    def sign(self, statement: bytes) -> str:
        return encode(self._key.sign(statement))


class FakePilot:
    """Speaks for a pilot; the test says what."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.key, self.launcher = Key(), Key()
        self.capabilities = Capabilities(cores=2, memory_mib=1024, disk_mib=1024)
        self.token, self.id = "", ""
        self.session: int | None = None
        self.sequence = 0

    def enrolment(self, secret: str) -> EnrolRequest:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return EnrolRequest(
            secret=secret,
            launcher_key=self.launcher.public,
            pilot_key=self.key.public,
            signature=self.launcher.sign(enrolment_statement(digest, self.key.public)),
            capabilities=self.capabilities,
        )

    async def enrol(self, secret: str) -> EnrolReply:
        body = self.enrolment(secret).model_dump_json()
        async with self.http.post("/pilot/v1/enrol", data=body) as reply:
            assert reply.status == 200, await reply.text()
            enrolled = EnrolReply.model_validate_json(await reply.read())
        self.token, self.id = enrolled.access_token, enrolled.pilot
        return enrolled

    async def renew(self) -> aiohttp.ClientResponse:
        async with self.http.post("/pilot/v1/challenge", json={"pilot": self.id}) as reply:
            nonce = (await reply.json())["nonce"]
        signature = self.key.sign(renewal_statement(self.id, nonce))
        body = {"pilot": self.id, "nonce": nonce, "signature": signature}
        return await self.http.post("/pilot/v1/renew", json=body)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def frame(self, **fields: Any) -> PilotFrame:
        self.sequence += 1
        wants = fields.pop("wants", Wants(cores=2, memory_mib=1024, disk_mib=1024))
        return PilotFrame(session=self.session, sequence=self.sequence, wants=wants, **fields)

    async def poll(self, wait: float = 5, **fields: Any) -> ManagerFrame | None:
        body = self.frame(**fields).model_dump_json()
        url = f"/pilot/v1/frames?wait={wait}"
        async with self.http.post(url, data=body, headers=self.headers) as reply:
            if reply.status == 204:
                return None
            assert reply.status == 200, await reply.text()
            answer = ManagerFrame.model_validate_json(await reply.read())
        self.session = answer.session
        return answer

    def connect(self) -> Any:
        return self.http.ws_connect("/pilot/v1/socket", headers=self.headers)

    async def say(self, socket: aiohttp.ClientWebSocketResponse, **fields: Any) -> None:
        await socket.send_str(self.frame(**fields).model_dump_json())

    async def hear(self, socket: aiohttp.ClientWebSocketResponse) -> ManagerFrame:
        frame = ManagerFrame.model_validate_json(await socket.receive_str(timeout=10))
        self.session = frame.session
        return frame

    async def hear_until(self, socket: aiohttp.ClientWebSocketResponse, what: str) -> ManagerFrame:
        """The first frame with something in its field `what`."""
        while True:
            frame = await self.hear(socket)
            if getattr(frame, what):
                return frame

    async def upload(self, offer: Offer, name: str, data: bytes) -> Output:
        [link] = [link for link in offer.outputs if link.name == name]
        sha256 = hashlib.sha256(data).hexdigest()
        async with self.http.put(link.url, data=data, headers=upload_headers(data)) as reply:
            assert reply.status == 201, await reply.text()
        return Output(name=name, sha256=sha256, size=len(data))


def upload_headers(data: bytes, offset: int = 0) -> dict[str, str]:
    return {
        "Upload-Offset": str(offset),
        "Upload-Length": str(len(data)),
        "Upload-Sha256": hashlib.sha256(data).hexdigest(),
    }


def held(offer: Offer, phase: Phase = Phase.RUNNING) -> tuple[Held, ...]:
    return (Held(job=offer.job, attempt=offer.attempt, phase=phase),)


def success(offer: Offer, outputs: tuple[Output, ...]) -> Report:
    return Report(
        job=offer.job,
        attempt=offer.attempt,
        outcome=Outcome.SUCCEEDED,
        exit_code=0,
        usage=Usage(wall_seconds=1.0, cpu_seconds=0.5),
        outputs=outputs,
    )


def now() -> float:
    return time.time()
