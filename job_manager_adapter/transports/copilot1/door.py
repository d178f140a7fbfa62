"""The manager's account of Co-Pilot 1: runs what the core decides about original agents."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol, assert_never

from copilot_agent.protocol.copilot1.commands import command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope, ack_of
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command, WantOutputDir
from copilot_agent.protocol.copilot1.monitor_commands import Ping
from copilot_agent.protocol.errors import CopilotError
from copilot_agent.xmpp.errors import XmppError
from job_manager_adapter.core.copilot1 import instance as core
from job_manager_adapter.core.leases import Key
from job_manager_adapter.services.errors import RefusedError
from job_manager_adapter.transports.copilot1.desk import Desk
from job_manager_adapter.transports.copilot1.standin import StandIn

log = logging.getLogger(__name__)
MAX_WAITING = 8
"""Requests of one agent that are under way; it repeats what is dropped."""
MAX_TOLD = 30
"""A minute, of messages that make no sense."""
TEND_SECONDS = 600.0
PAUSES = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Seconds before outputs are tried to be taken in again, such as after a full disk."""


class Sender(Protocol):
    async def send(self, envelope: Envelope) -> None:
        """Raises XmppError and StanzaError."""


async def _nobody(_: Envelope, __: Command) -> None:
    """Nothing else is spoken on the account."""


async def _nothing() -> None:
    """Nobody wants to know."""


class Copilot1Door:
    """`heard` is told of every message; `others` of each command, `empty` of who gets no job."""

    def __init__(
        self,
        desk: Desk,
        instance: core.Instance,
        ids: Callable[[], str],
        *,
        count_frame: Callable[[str], None],
        resume_seconds: float,
        others: Callable[[Envelope, Command], Awaitable[None]] = _nobody,
        empty: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._desk = desk
        self._instance = instance
        self._ids = ids
        self._count_frame = count_frame
        self._resume_seconds = resume_seconds
        self._others = others
        self._empty = empty
        self._account: Sender | None = None
        self._stand_ins: dict[str, StandIn] = {}
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: deque[float] = deque()
        self.tallies: Counter[str] = Counter()
        """Since the start: strangers, late, refused, jobs_handed, jobs_taken."""

    def speak_through(self, account: Sender) -> None:
        self._account = account

    async def run(self) -> None:
        """Until cancelled."""
        self._desk.chirp.prepare()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self.resume, self._resume_seconds))
                group.create_task(self._repeat(self.tidy, TEND_SECONDS))
                group.create_task(self._repeat(self.probe, self._desk.terms.gone / 4))
        finally:
            for task in list(self._tasks):
                task.cancel()
            for stand_in in self._stand_ins.values():
                await stand_in.close()

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await work()
            except (CopilotError, OSError) as error:
                log.warning("copilot1: %s", error)
            await asyncio.sleep(seconds)

    # ----- what comes in

    async def heard(self, envelope: Envelope) -> None:
        try:
            self.note_presence(envelope)
            if envelope.info is not None:
                self._count_frame("copilot1")
                await self._take(envelope, command_of(envelope.info))
        except StanzaError as error:
            await self._refuse(envelope, error)
        except Exception:  # of one message: the others are heard
            log.exception("copilot1: a message of %s failed", core.bare(envelope.sender))

    async def _take(self, envelope: Envelope, command: Command) -> None:
        if self._instance.knows(envelope):
            await self._handle(core.Heard(envelope, command))
        await self._others(envelope, command)

    def note_presence(self, envelope: Envelope) -> None:
        """What bounces from an agent's address says that it is gone, everything else that it lives.

        Originals send no other sign of life.
        """
        stand_in = self._stand_ins.get(core.bare(envelope.sender))
        if stand_in is None or not self._instance.knows(envelope):
            return
        if envelope.type != "error":
            stand_in.seen(envelope.sender)
        elif envelope.sender == stand_in.address:
            stand_in.gone()

    async def _refuse(self, envelope: Envelope, error: StanzaError) -> None:
        """It is acknowledged all the same: it will not be better when it comes again."""
        self._tell("refused", f"a message of {core.bare(envelope.sender)} is refused: {error}")
        if self._instance.knows(envelope) and envelope.wants_ack:
            await self._send(ack_of(envelope))

    def _tell(self, kind: str, text: str) -> None:
        """Anybody with an account may be a nuisance; the log is not theirs to fill."""
        self.tallies[kind] += 1
        now = self._desk.now()
        while self._told and self._told[0] < now - 60:
            self._told.popleft()
        if len(self._told) < MAX_TOLD:
            self._told.append(now)
            log.warning("copilot1: %s", text)

    async def _handle(self, event: core.Event) -> None:
        for effect in self._instance.handle(event, self._desk.now()):
            await self._do(effect)

    async def _do(self, effect: core.Effect) -> None:
        match effect:
            case core.Acknowledge():
                await self._send(ack_of(effect.envelope))
            case core.Say():
                await self._say(effect.recipient, effect.command)
            case core.LookForJob():
                await self._answer_want(effect)
            case core.ClaimJob():
                if not self._start(effect.sender, self._claim(effect)):
                    await self._handle(core.Claimed(effect.sender, effect.message, None))
            case core.FindPlace():
                self._start(effect.sender, self._place(effect))
            case core.TakeResult():
                if not self._start(effect.envelope.sender, self._finish(effect)):
                    await self._handle(core.Finished(effect.envelope, safe=False))
            case core.Note():
                self._tell(effect.kind, f"{effect.agent} {effect.text}")
            case _ as never:
                assert_never(never)

    async def _answer_want(self, effect: core.LookForJob) -> None:
        found = self._look(effect)
        await self._handle(core.Looked(effect.sender, found))
        if not found:
            await self._empty()

    async def _say(self, recipient: str, command: Command) -> None:
        await self._send(Envelope(recipient=recipient, id=self._ids(), info=info_of(command)))

    async def _send(self, envelope: Envelope) -> None:
        """What does not get through is asked for again."""
        if self._account is None:
            return
        try:
            await self._account.send(envelope)
        except (XmppError, StanzaError) as error:
            log.warning("copilot1: nothing reaches %s: %s", envelope.recipient, error)

    # ----- what takes a while

    def _start(self, sender: str, work: Coroutine[object, object, None]) -> bool:
        """Whether there is room for it."""
        agent = core.bare(sender)
        if self._waiting[agent] >= MAX_WAITING:
            work.close()
            return False
        self._waiting[agent] += 1
        task = asyncio.create_task(self._counted(agent, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _counted(self, agent: str, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except Exception:  # of one agent's request: the others go on
            log.exception("copilot1: a request of %s failed", agent)
        finally:
            self._waiting[agent] -= 1
            if not self._waiting[agent]:
                del self._waiting[agent]
                if (stand_in := self._stand_ins.get(agent)) and stand_in.idle:
                    del self._stand_ins[agent]

    def _stand_in(self, agent: str, address: str = "") -> StandIn:
        if agent not in self._stand_ins:
            self._stand_ins[agent] = StandIn(agent, self._desk)
        if address:
            self._stand_ins[agent].seen(address)
        return self._stand_ins[agent]

    def _look(self, effect: core.LookForJob) -> bool:
        """Also an agent that holds something is answered: it gets that again."""
        stand_in = self._stand_ins.get(core.bare(effect.sender))
        if stand_in and stand_in.held:
            return True
        terms = self._desk.terms
        capabilities = terms.capabilities(effect.machine)
        return self._desk.pilots.has_job_for(capabilities, terms.experiments)

    async def _claim(self, effect: core.ClaimJob) -> None:
        run = None
        try:
            stand_in = self._stand_in(core.bare(effect.sender), effect.sender)
            run = await stand_in.claim(effect.machine)
        except CopilotError as error:
            log.warning("copilot1: no job for %s: %s", effect.sender, error)
        finally:
            self.tallies["jobs_handed"] += run is not None
            await self._handle(core.Claimed(effect.sender, effect.message, run))

    async def _place(self, effect: core.FindPlace) -> None:
        ours = await self._is_ours(effect)
        if ours and effect.store:
            try:
                await asyncio.to_thread(self._desk.chirp.receive, effect.about.job_id)
            except OSError as error:
                log.warning("copilot1: no place for %s: %s", effect.about.job_id, error)
                ours = False
        await self._handle(core.Placed(effect.sender, effect.about, ours))

    async def _is_ours(self, effect: core.FindPlace) -> bool:
        """Of several managers the one with the lease answers; if it has ended, everybody may."""
        asks_all = isinstance(effect.about, WantOutputDir)
        if not asks_all or self._desk.pilots.watched(*effect.attempt):
            return True
        try:
            await self._desk.pilots.require_open(*effect.attempt)
        except RefusedError:
            return True
        except CopilotError as error:
            log.warning("copilot1: %s waits for the store: %s", effect.about.job_id, error)
        return False

    async def _finish(self, effect: core.TakeResult) -> None:
        sender, safe = effect.envelope.sender, False
        stand_in = self._stand_in(core.bare(sender), sender)
        try:
            safe = await self._taken(stand_in, effect)
        finally:
            stand_in.stop_finishing()
            await self._handle(core.Finished(effect.envelope, safe))

    async def _taken(self, stand_in: StandIn, effect: core.TakeResult) -> bool:
        """Whether the result is safe, or nobody wants it any more."""
        for pause in PAUSES:
            try:
                report = await stand_in.finish(effect.attempt, effect.done.job_id, effect.done)
            except (CopilotError, OSError) as error:
                log.warning("copilot1: %s is not taken in yet: %s", effect.done.job_id, error)
                await asyncio.sleep(pause)
            else:
                self.tallies["jobs_taken" if report else "late"] += 1
                return True
        return False

    # ----- care

    async def resume(self) -> None:
        """Holds what agents hold and nobody speaks for: after a restart, or another's death."""
        held = {stand_in.held for stand_in in self._stand_ins.values()}
        for one in self._desk.pilots.unattended():
            key: Key = (one.job, one.attempt)
            overdue = self._desk.now() > one.leased_at + self._desk.terms.job
            if key in held or overdue:
                continue
            if agent := await self._desk.agents.agent_of(one.pilot):
                log.info("copilot1: goes on for %s with %s", agent, one.job)
                await self._stand_in(agent).resume(key)

    async def probe(self) -> None:
        """Says something to agents at work, to learn from the XMPP server who is gone."""
        for stand_in in list(self._stand_ins.values()):
            if stand_in.held and stand_in.address:
                info = info_of(Ping())
                about = Envelope(recipient=stand_in.address, id=self._ids(), noack=True, info=info)
                await self._send(about)

    async def tidy(self) -> None:
        """Removes the directories of attempts that have ended long ago."""
        seconds = self._desk.terms.job
        for name, key in await asyncio.to_thread(lambda: [*self._desk.chirp.leftovers(seconds)]):
            try:
                await self._desk.pilots.require_open(*key)
            except RefusedError:
                await asyncio.to_thread(self._desk.chirp.remove, name)
