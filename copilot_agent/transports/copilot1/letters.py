"""The account's mail: what comes becomes events, what is to be said goes out in its order."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.copilot1.commands import command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope, ack_of
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.fields import JobName
from copilot_agent.protocol.copilot1.job_commands import Command, HaveJob
from copilot_agent.protocol.copilot1.tree import Tree
from copilot_agent.transports.copilot1.search import Search
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.errors import XmppError
from copilot_agent.xmpp.stream import StanzaStream

log = logging.getLogger(__name__)

OFFLINE_SECONDS = 1.0
"""Until a broken connection is known to be broken."""
MAX_REPLIES = 1000
"""Waiting to go out."""
_NAME: TypeAdapter[str] = TypeAdapter(JobName)

Answer = Callable[[Envelope], Iterable[Envelope] | None]
"""What is said, acknowledgement and all, to messages for others, such as Heartbeat; else None."""


class Letters:
    def __init__(
        self,
        stream: StanzaStream,
        managers: str,
        hear: Callable[[w.Event], None],
        sent: Callable[[Command], None],
        *,
        room: str = "",
        answer: Answer | None = None,
    ) -> None:
        """`hear` returns when what it was told is safe; `sent` hears of what has gone out.

        Nobody else than `managers`, a bare address, is listened to.
        """
        self._managers = managers
        self._search = Search()
        self._account = Account(stream, self._take, room=room)
        self._hear = hear
        self._sent = sent
        self._answer = answer
        self._outbox: asyncio.Queue[tuple[Envelope, Command | None]] = asyncio.Queue()
        self._offline = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._account.run())
            group.create_task(self._watch())
            group.create_task(self._send_all())

    async def wait_online(self) -> None:
        await self._account.wait_online()

    # ----- out

    def say(self, to: str, ident: str, command: Command) -> None:
        """`Unsent` follows if it cannot go out now."""
        info = info_of(command)
        letter = Envelope(recipient=to, id=ident, noack=command.noack, info=info)
        self._outbox.put_nowait((letter, command))

    async def _send_all(self) -> None:
        while True:
            letter, command = await self._outbox.get()
            try:
                await self._account.send(letter)
            except StanzaError as error:
                log.error("what was to be said cannot be said: %s", error)
            except XmppError as error:
                self._unsent(letter, error)
            else:
                if command is not None:
                    self._sent(command)

    def _unsent(self, letter: Envelope, error: XmppError) -> None:
        log.info("not said: %s", error.message)
        self._offline.set()
        if letter.info is not None:
            self._hear(w.Unsent(letter.id))

    async def _watch(self) -> None:
        while True:
            await self._account.wait_online()
            self._offline.clear()
            self._hear(w.Online())
            await self._offline.wait()
            await asyncio.sleep(OFFLINE_SECONDS)

    # ----- in

    async def _take(self, letter: Envelope) -> None:
        if letter.ack:
            self._hear(w.Acked(letter.sender, letter.ack))
        elif letter.type == "error":
            self._hear(w.Bounced(letter.id))
        elif letter.info is not None:
            await self._open(letter, letter.info)

    async def _open(self, letter: Envelope, info: Tree) -> None:
        answers = None if self._answer is None else self._answer(letter)
        if answers is None and letter.type != "groupchat":
            await self._open_own(letter, info)
        for each in answers or ():
            self._reply(_unsigned(each))

    async def _open_own(self, letter: Envelope, info: Tree) -> None:
        """Strangers are acknowledged, so that they stop, and not listened to."""
        if self._is_manager(letter.sender):
            if (event := await self._event_of(letter.sender, info)) is not None:
                self._hear(event)
        else:
            log.debug("%s is a stranger", letter.sender)
        if letter.wants_ack:
            self._reply(_unsigned(ack_of(letter)))

    def _reply(self, letter: Envelope) -> None:
        """Too many of them are lost, as on a bad wire: who wants one asks again."""
        if self._outbox.qsize() < MAX_REPLIES:
            self._outbox.put_nowait((letter, None))

    async def _event_of(self, sender: str, info: Tree) -> w.Event | None:
        try:
            command = command_of(info)
        except StanzaError as error:
            log.warning("%s says what is no command: %s", sender, error)
            return w.Garbled(sender, _job_of(info), str(error)) if _gives_a_job(info) else None
        if isinstance(command, HaveJob) and command.require_file:
            return w.Heard(sender, command, await self._search.finds(command.require_file))
        return w.Heard(sender, command)

    def _is_manager(self, sender: str) -> bool:
        return w.bare(sender) == self._managers


def _unsigned(letter: Envelope) -> Envelope:
    """The server puts in who it is from; a wrong name would end the stream."""
    return letter.model_copy(update={"sender": ""})


def _gives_a_job(info: Tree) -> bool:
    return info.get("command") == "runJob"


def _job_of(info: Tree) -> str:
    job = info.get("job")
    with suppress(ValidationError):
        if isinstance(job, dict):
            return _NAME.validate_python(job.get("id"))
    return ""
