"""A small manager for the agent's own tests: says what the test says, and can go wrong on order."""

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.enrolment import (
    ChallengeReply,
    EnrolReply,
    EnrolRequest,
    RenewReply,
    RenewRequest,
    enrolment_statement,
    renewal_statement,
)
from copilot_agent.protocol.errors import ErrorCode, Problem
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame, Policy
from copilot_agent.protocol.ids import make_id

CLOSE_CODES = {
    TransportTrouble.SUPERSEDED: 4001,
    TransportTrouble.TOKEN: 4002,
    TransportTrouble.RETIRED: 4003,
    TransportTrouble.MALFORMED: 4004,
    TransportTrouble.UNREACHABLE: 1012,
}
REFUSALS = {
    TransportTrouble.SUPERSEDED: (409, ErrorCode.SESSION_SUPERSEDED),
    TransportTrouble.TOKEN: (401, ErrorCode.TOKEN_EXPIRED),
    TransportTrouble.RETIRED: (403, ErrorCode.PILOT_RETIRED),
    TransportTrouble.MALFORMED: (400, ErrorCode.INVALID_REQUEST),
    TransportTrouble.UNREACHABLE: (503, ErrorCode.UNAVAILABLE),
}
PILOT = make_id("p", 0, 1)


def verify(key: str, signature: str, message: bytes) -> None:
    raw = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in (key, signature)]
    Ed25519PublicKey.from_public_bytes(raw[0]).verify(raw[1], message)


def refuse(status: int, code: str) -> web.Response:
    problem = Problem(title=code, status=status, code=code, remedy="ask for another one")
    return web.Response(
        status=status,
        body=problem.model_dump_json(),
        content_type="application/problem+json",
        headers={"Retry-After": "7"} if status == 503 else {},
    )


class ScriptedManager:
    def __init__(self) -> None:
        self.url = ""
        self.policy = Policy(heartbeat_seconds=0.5, lease_seconds=10)
        self.token_seconds = 3600.0
        self.tokens = {"token"}
        self.websockets = True
        self.enrolments: list[EnrolRequest] = []
        self.refuse_enrolment: ErrorCode | None = None
        self.refused_keys: list[str] = []
        self.received: asyncio.Queue[PilotFrame] = asyncio.Queue()
        self.files = ScriptedFiles()
        self._outbox: asyncio.Queue[ManagerFrame | TransportTrouble] = asyncio.Queue()
        self._keys: dict[str, str] = {}
        self._polls = 0
        self._sockets = 0

    @asynccontextmanager
    async def running(
        self, context: ssl.SSLContext | None = None
    ) -> AsyncIterator["ScriptedManager"]:
        app = web.Application(client_max_size=1 << 26)
        app.add_routes(
            [
                web.post("/pilot/v1/enrol", self._enrol),
                web.post("/pilot/v1/challenge", self._challenge),
                web.post("/pilot/v1/renew", self._renew),
                web.get("/pilot/v1/socket", self._socket),
                web.post("/pilot/v1/frames", self._poll),
                web.get("/files/{name}", self.files.get),
                web.head("/out/{name}", self.files.head),
                web.put("/out/{name}", self.files.put),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    # ----- what the test says

    def say(self, frame: ManagerFrame) -> None:
        self._outbox.put_nowait(frame)

    def hang_up(self, trouble: TransportTrouble = TransportTrouble.UNREACHABLE) -> None:
        self._outbox.put_nowait(trouble)

    async def hear(self) -> PilotFrame:
        async with asyncio.timeout(10):
            return await self.received.get()

    # ----- enrolment

    async def _enrol(self, request: web.Request) -> web.Response:
        body = EnrolRequest.model_validate_json(await request.read())
        if self.refuse_enrolment is not None:
            self.refused_keys.append(body.pilot_key)
            busy = self.refuse_enrolment is ErrorCode.UNAVAILABLE
            return refuse(503 if busy else 403, self.refuse_enrolment)
        secret = hashlib.sha256(body.secret.encode()).hexdigest()
        verify(body.launcher_key, body.signature, enrolment_statement(secret, body.pilot_key))
        self.enrolments.append(body)
        self._keys[PILOT] = body.pilot_key
        reply = EnrolReply(
            pilot=PILOT,
            host=make_id("h", 0, 1),
            access_token=self._mint(),
            token_expires=time.time() + self.token_seconds,
            server_time=time.time(),
            policy=self.policy,
            manager_key="A" * 43,
        )
        return web.Response(body=reply.model_dump_json(), content_type="application/json")

    async def _challenge(self, request: web.Request) -> web.Response:
        reply = ChallengeReply(nonce="n" * 16, server_time=time.time())
        return web.Response(body=reply.model_dump_json(), content_type="application/json")

    async def _renew(self, request: web.Request) -> web.Response:
        body = RenewRequest.model_validate_json(await request.read())
        if body.pilot not in self._keys:
            return refuse(401, ErrorCode.UNAUTHENTICATED)
        statement = renewal_statement(body.pilot, body.nonce)
        verify(self._keys[body.pilot], body.signature, statement)
        reply = RenewReply(
            access_token=self._mint(),
            token_expires=time.time() + self.token_seconds,
            server_time=time.time(),
        )
        return web.Response(body=reply.model_dump_json(), content_type="application/json")

    def forget_pilots(self) -> None:
        self._keys.clear()

    def _mint(self) -> str:
        token = f"token-{len(self.tokens)}"
        self.tokens.add(token)
        return token

    def _refused(self, request: web.Request) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens

    # ----- conversation

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self.websockets:
            return web.Response(status=400, text="a proxy without WebSockets")
        if self._refused(request):
            return refuse(401, ErrorCode.UNAUTHENTICATED)
        socket = web.WebSocketResponse(max_msg_size=1 << 20)
        await socket.prepare(request)
        self._sockets += 1
        speaker = asyncio.create_task(self._speak(socket, self._sockets))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self.received.put_nowait(PilotFrame.model_validate_json(message.data))
        finally:
            speaker.cancel()
        return socket

    async def _speak(self, socket: web.WebSocketResponse, number: int) -> None:
        while number == self._sockets:
            item = await self._outbox.get()
            if isinstance(item, TransportTrouble):
                await socket.close(code=CLOSE_CODES[item])
                return
            await socket.send_str(item.model_dump_json())

    async def _poll(self, request: web.Request) -> web.Response:
        if self._refused(request):
            return refuse(401, ErrorCode.TOKEN_EXPIRED)
        frame = PilotFrame.model_validate_json(await request.read())
        self.received.put_nowait(frame)
        self._polls += 1
        number = self._polls
        deadline = time.monotonic() + min(float(request.query.get("wait", "0")), 25)
        while self._outbox.empty():
            if number != self._polls:
                return web.Response(status=204)
            if frame.session is not None and time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)  # looks for a newer poll, the outbox and the deadline at once
        if self._outbox.empty():
            return web.Response(status=204)
        item = self._outbox.get_nowait()
        if isinstance(item, TransportTrouble):
            return refuse(*REFUSALS[item])
        return web.Response(body=item.model_dump_json(), content_type="application/json")


class ScriptedFiles:
    """Inputs and outputs by name; `cut` bytes break a transfer once, `expired` refuses links."""

    def __init__(self) -> None:
        self.inputs: dict[str, bytes] = {}
        self.outputs: dict[str, bytes] = {}
        self.expired: set[str] = set()
        self.cut: int | None = None
        self.missing_ranges = False
        self.served = 0

    async def get(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("link", "") in self.expired:
            return refuse(403, ErrorCode.LINK_EXPIRED)
        data = self.inputs.get(request.match_info["name"])
        if data is None:
            return refuse(404, ErrorCode.NOT_FOUND)
        start = 0 if self.missing_ranges else (request.http_range.start or 0)
        if start > len(data):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        end = len(data) if self.cut is None else start + self.cut
        await response.write(data[start:end])
        self.served += end - start
        if self.cut is not None:
            self.cut = None
            if request.transport is not None:
                request.transport.close()
        return response

    async def head(self, request: web.Request) -> web.Response:
        if request.query.get("link", "") in self.expired:
            return web.Response(status=403)
        stored = self.outputs.get(request.match_info["name"], b"")
        return web.Response(headers={"Upload-Offset": str(len(stored)), "Upload-Complete": "0"})

    async def put(self, request: web.Request) -> web.Response:
        if request.query.get("link", "") in self.expired:
            return refuse(403, ErrorCode.LINK_EXPIRED)
        name = request.match_info["name"]
        stored = self.outputs.setdefault(name, b"")
        if int(request.headers["Upload-Offset"]) != len(stored):
            answer = refuse(409, ErrorCode.OFFSET_MISMATCH)
            answer.headers["Upload-Offset"] = str(len(stored))
            return answer
        body = await request.read()
        if self.cut is not None:
            body, self.cut = body[: self.cut], None
        self.outputs[name] = stored + body
        size = int(request.headers["Upload-Length"])
        if len(self.outputs[name]) < size:
            left = {"Upload-Offset": str(len(self.outputs[name]))}
            return web.Response(status=204, headers=left)
        digest = hashlib.sha256(self.outputs[name]).hexdigest()
        if digest != request.headers["Upload-Sha256"]:
            self.outputs[name] = b""
            return refuse(422, ErrorCode.HASH_MISMATCH)
        return web.Response(status=201)


def make_file(path: Path, data: bytes) -> tuple[Path, str]:
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()
