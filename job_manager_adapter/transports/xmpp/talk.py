"""One pilot's conversation: its IQs in, the session's frames out, and answers for all of them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from xml.etree.ElementTree import Element

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.frames import PilotFrame
from copilot_agent.protocol.xmpp import Assembler, PieceError, pieces
from copilot_agent.xmpp.errors import XmppError
from job_manager_adapter.services.errors import SessionClosedError
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.transports.pace import FRAMES_PER_JOB, Pace
from job_manager_adapter.transports.parsing import malformed, parse_frame
from job_manager_adapter.transports.xmpp import stanzas
from job_manager_adapter.transports.xmpp.door import XmppDoor

log = logging.getLogger(__name__)

FRAMES_PER_SECOND, FRAME_BURST = 20.0, 200
"""Beyond this, and what its finished jobs earn it, a pilot is heard later."""
MOST_WAITING = 64
"""IQs of one pilot that wait for their turn or for an answer."""
MOST_ASKED = 8
"""IQs of one pilot that wait for a frame in their answer; older ones are answered without."""
EMPTY_SECONDS = 5.0
"""How long an IQ waits for a frame that its answer may carry."""
MOST_PUSHED = 4
"""IQs to one pilot that it has not answered: a pilot that does not read holds up only itself."""
PUSH_SECONDS = 60.0
"""A pilot that leaves one of ours unanswered for so long is not there any more."""
HALF_SECONDS = 60.0
"""Without its next piece: nobody sends the rest of that frame any more."""

Send = Callable[[str], Awaitable[None]]


class Talk:
    """Lives while its pilot's stream does. Use from one event loop only."""

    def __init__(
        self, pilot: str, jid: str, door: XmppDoor, writer: stanzas.Writer, send: Send
    ) -> None:
        self.pilot = pilot
        self._jid = jid
        self._door = door
        self._writer = writer
        self._send = send
        self._session: PilotSession | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._attach = ""
        self._connection = ""
        self._assembler, self._piece_at = Assembler(), 0.0
        self._pace = Pace(FRAMES_PER_SECOND, FRAME_BURST)
        self._late: dict[str, asyncio.TimerHandle] = {}
        """IQs that came too fast and are heard later."""
        self._asked: deque[tuple[str, float]] = deque()
        """IQs of the pilot that wait for an answer, and since when."""
        self._pushes = 0
        self._pushed: dict[str, float] = {}
        """IQs of ours that wait for an answer, oldest first, and since when."""
        self._room = asyncio.Event()

    # ----- what comes in

    async def take(self, number: str, piece: Element | None) -> None:
        """An IQ of type set."""
        try:
            if piece is None:
                raise malformed("a frame is wanted")
            text = self._put_together(number, piece)
        except (PieceError, CopilotError) as error:
            await self._refuse(number, malformed(str(error)))
            return
        now = self._piece_at = asyncio.get_running_loop().time()
        if text is None:
            await self._send(self._writer.iq("result", self._jid, number))
        elif len(self._late) >= MOST_WAITING or number in self._late:  # does not count
            await self._send(self._writer.refusal(self._jid, number, "resource-constraint"))
        elif delay := self._pace.delay(now):
            self._late[number] = asyncio.get_running_loop().call_later(
                delay, self._now, number, text
            )
        else:
            await self._hear(number, text)

    def _put_together(self, number: str, piece: Element) -> str | None:
        """What is left of a connection that broke within a frame is not part of the next one."""
        connection = number.rpartition("-")[0]
        if connection != self._connection:
            self._connection, self._assembler = connection, Assembler()
        return self._assembler.add(piece)

    def _now(self, number: str, text: str) -> None:
        del self._late[number]
        task = asyncio.ensure_future(self._hear(number, text))
        task.add_done_callback(_quietly)

    async def _hear(self, number: str, text: str) -> None:
        self._door.count_frame("xmpp")
        try:
            frame = parse_frame(text)
            if frame.session is None:
                self._begin(number, frame)
            else:
                self._go_on(number, frame, frame.session)
                await self._answer(MOST_ASKED)
        except CopilotError as error:
            await self._refuse(number, error)

    def _begin(self, number: str, frame: PilotFrame) -> None:
        """Another attach; what was due for the one before is nobody's business any more.

        That one says not a word more, or it would be taken for this one's.
        """
        self._asked.clear()
        self._asked.append((number, asyncio.get_running_loop().time()))
        self._attach = number
        self._pushed.clear()
        before, self._session = self._speaking, None
        if before is not None:
            before.cancel()
        self._speaking = asyncio.create_task(self._converse(before, frame))

    def _go_on(self, number: str, frame: PilotFrame, named: int) -> None:
        if self._session is None or self._session.number != named:
            self._door.pilots.session(self.pilot, named)  # says why it is over, if it is
            raise SessionClosedError("that session goes on elsewhere", remedy="attach again")
        self._session.receive(frame)
        self._pace.forgive(FRAMES_PER_JOB * self._session.newly_accepted())
        self._asked.append((number, asyncio.get_running_loop().time()))

    def answered(self, number: str, refused: bool) -> None:
        """The pilot, or its server, has answered one of ours."""
        if number not in self._pushed:
            return
        del self._pushed[number]
        self._room.set()
        if refused:
            self.drop()

    # ----- what goes out

    async def _converse(self, before: "asyncio.Task[None] | None", first: PilotFrame) -> None:
        if before is not None:
            await asyncio.wait([before])
        session = None
        try:
            await self._door.attaches.keep(self.pilot)
            session = self._session = await self._door.pilots.attach(self.pilot, "xmpp")
            session.receive(first)
            while True:
                if (text := await session.next_text()) is not None:
                    await self._say(text)
        except CopilotError as error:
            with suppress(XmppError):
                await self.end(error)
        except XmppError as error:
            log.debug("pilot %s: the way to it is broken: %s", self.pilot, error)
        finally:
            if session is not None:
                session.detach()
            if self._session is session:
                self._session = None

    async def _say(self, text: str) -> None:
        parts = list(pieces(text))
        if len(parts) == 1 and self._asked:
            number, _ = self._asked.popleft()
            content = stanzas.frame(*parts[0], self._attach)
            await self._send(self._writer.iq("result", self._jid, number, content))
            return
        for part, more in parts:
            await self._push(stanzas.frame(part, more, self._attach))

    async def _push(self, content: str) -> None:
        while len(self._pushed) >= MOST_PUSHED:
            self._room.clear()
            await self._room.wait()
        self._pushes += 1
        number = f"{self._attach}/{self._pushes}"
        self._pushed[number] = asyncio.get_running_loop().time()
        await self._send(self._writer.iq("set", self._jid, number, content))

    async def tidy(self, now: float) -> None:
        """Empty answers, so that no IQ waits long; an end with a pilot that does not answer."""
        if self._pushed and next(iter(self._pushed.values())) < now - PUSH_SECONDS:
            log.debug("pilot %s does not answer", self.pilot)
            self._pushed.clear()
            self.drop()
        if self._assembler.waiting and self._piece_at < now - HALF_SECONDS:
            self._assembler = Assembler()
        old = sum(1 for _, at in self._asked if at < now - EMPTY_SECONDS)
        await self._answer(len(self._asked) - old)

    async def _answer(self, most: int) -> None:
        """Without a frame, all but the latest."""
        while len(self._asked) > most:
            number, _ = self._asked.popleft()
            await self._send(self._writer.iq("result", self._jid, number))

    async def end(self, error: CopilotError) -> None:
        """Tells the pilot that the session is over."""
        content = stanzas.end(error, self._attach)
        if self._asked:
            while self._asked:
                number, _ = self._asked.popleft()
                await self._send(self._writer.refusal(self._jid, number, "not-acceptable", content))
        else:
            self._pushes += 1
            await self._send(
                self._writer.iq("set", self._jid, f"{self._attach}/{self._pushes}", content)
            )

    async def _refuse(self, number: str, error: CopilotError) -> None:
        """Of one IQ; the session ends with it."""
        content = stanzas.end(error, self._attach)
        await self._send(self._writer.refusal(self._jid, number, "not-acceptable", content))
        self.drop()

    # ----- its life

    @property
    def over(self) -> bool:
        """There is no session, and no frame is coming in."""
        idle = self._speaking is None or self._speaking.done()
        return idle and not self._assembler.waiting and not self._late

    def forget(self) -> None:
        """Nothing of it may happen any more."""
        for late in self._late.values():
            late.cancel()
        self._late.clear()
        self.drop()

    def drop(self) -> None:
        """The session ends; leases stay, and the pilot may attach again."""
        session, self._session = self._session, None
        if session is not None:
            session.detach()
        if self._speaking is not None:
            self._speaking.cancel()


def _quietly(task: "asyncio.Task[None]") -> None:
    """A broken stream is the component's to tell."""
    if not task.cancelled() and isinstance(task.exception(), XmppError):
        log.debug("a late frame's answer was not sent")
