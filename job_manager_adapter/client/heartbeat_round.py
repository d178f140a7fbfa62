"""Logs in, joins the room, asks, and listens."""

import asyncio
import secrets
import uuid
from collections.abc import Awaitable

from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.errors import CopilotError
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.client import ClientStream, Login
from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from job_manager_adapter.client.copilot1_settings import Copilot1Settings
from job_manager_adapter.client.heartbeat import Asking

JOIN_SECONDS = 20.0
MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"})
OLD_MECHANISMS = MECHANISMS | {"DIGEST-MD5"}
"""Of servers from the time of the originals, where the operator asked for it."""

_REMEDIES = {
    XmppTrouble.UNREACHABLE: "check --server HOST:PORT, and that the server runs",
    XmppTrouble.TLS: "give its authority with --ca FILE; --insecure only on a wire that you trust",
    XmppTrouble.LOGIN: "check --jid and --password-file, and --room and --nick for a closed room",
    XmppTrouble.CONFLICT: "somebody else uses this account: ask from one of your own",
    XmppTrouble.LIMIT: "report it to who runs the XMPP server",
}


async def ask(settings: Copilot1Settings, asking: Asking, seconds: float) -> None:
    """The answers are in `asking`, all that came within `seconds`. Raises CopilotError."""
    nick = settings.nick or f"copilot-{secrets.token_hex(4)}"
    host, port = settings.address
    tls = settings.tls()
    mechanisms = MECHANISMS if tls else OLD_MECHANISMS
    login = Login(settings.jid, settings.secret(), nick, host, port, tls, mechanisms)
    stream = ClientStream(login)
    seat = f"{settings.chat_room}/{nick}" if asking.needs_room else ""
    round_ = _Round(stream, seat, asking)
    try:
        await round_.run(seconds)
    except XmppError as error:
        raise CopilotError(error.message, remedy=_REMEDIES[error.trouble]) from error
    finally:
        await stream.close()


class _Round:
    def __init__(self, stream: ClientStream, seat: str, asking: Asking) -> None:
        self._asking = asking
        self._complete = asyncio.Event()
        self._account = Account(stream, self._hear, room=seat)

    async def run(self, seconds: float) -> None:
        talking = asyncio.create_task(self._account.converse())
        try:
            if not await self._while(talking, self._account.wait_joined(), JOIN_SECONDS):
                message = f"the chat room does not answer within {JOIN_SECONDS:.0f} s"
                raise XmppError(XmppTrouble.UNREACHABLE, message)
            loop = asyncio.get_running_loop()
            for question in self._asking.questions(loop.time(), lambda: str(uuid.uuid4())):
                await self._account.send(question)
            await self._while(talking, self._complete.wait(), seconds)
        finally:
            talking.cancel()
            await asyncio.wait([talking])

    async def _while(
        self, talking: "asyncio.Task[None]", wait: Awaitable[object], seconds: float
    ) -> bool:
        """Whether `wait` ended within `seconds`. Raises what ended the conversation."""
        waiting = asyncio.ensure_future(wait)
        try:
            done, _ = await asyncio.wait(
                {talking, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                await task
            return waiting in done
        finally:
            waiting.cancel()

    async def _hear(self, envelope: Envelope) -> None:
        now = asyncio.get_running_loop().time()
        for word in self._asking.hear(envelope, now):
            await self._account.send(word)
        if self._asking.complete:
            self._complete.set()
