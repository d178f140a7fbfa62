"""A pilot of ours that stands for an original agent, which knows no leases and no heartbeats."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import JobDone, RunJob
from copilot_agent.protocol.copilot1.machine import Machine
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.frames import CommandKind, ManagerFrame, Offer, Report, Wants
from copilot_agent.protocol.job import FailureClass, JobSpec, Phase
from job_manager_adapter.core.copilot1.reporting import report_of
from job_manager_adapter.core.copilot1.running import SCRIPT, Place, Running, running
from job_manager_adapter.core.leases import Key
from job_manager_adapter.services.errors import RefusedError, SessionClosedError
from job_manager_adapter.transports.copilot1.desk import Desk
from job_manager_adapter.transports.copilot1.voice import NOTHING, Voice, ended

log = logging.getLogger(__name__)
MOST_HANDED = 3
"""How often one attempt is handed to the same agent, which asks again after it was restarted."""
CROSSING_SECONDS = 1.0
"""An offer may come that long after nothing is wanted any more."""
SOON_SECONDS = 5.0


@dataclass
class Hand:
    """An attempt in the agent's hands."""

    key: Key
    spec: JobSpec
    since: float
    """Unix time."""
    run: RunJob | None = None
    """None after a restart of the manager, until the agent asks again."""
    handed: int = 0
    """How often."""
    handed_at: float = 0.0
    """The last time, in Unix time."""
    finishing: bool = False
    """Its outputs are being taken in: now it is for us to be quick."""
    holding: "asyncio.Task[None] | None" = field(default=None, repr=False)


class StandIn:
    """For one account. The agent asks one thing after the other, and so it is dealt with."""

    def __init__(self, agent: str, desk: Desk) -> None:
        self._agent = agent
        self._desk = desk
        self._lock = asyncio.Lock()
        self._voice: Voice | None = None
        self._hand: Hand | None = None
        self.address = ""
        """The agent's own, full; empty until it says something."""
        self._gone_since: float | None = None
        self._resumed = Capabilities(cores=0, memory_mib=0, disk_mib=0)

    @property
    def held(self) -> Key | None:
        return self._hand.key if self._hand else None

    @property
    def idle(self) -> bool:
        return self._hand is None and not self._lock.locked()

    def seen(self, address: str) -> None:
        """The agent said something."""
        self.address, self._gone_since = address, None

    def gone(self) -> None:
        """The XMPP server says that nobody is there."""
        if self._gone_since is None:
            self._gone_since = self._desk.now()

    # ----- what the agent asks for

    async def claim(self, machine: Machine) -> RunJob | None:
        """A job whose claim is committed and whose inputs lie ready.

        An agent that asks while it holds one has lost it, or never heard of it: it gets the same
        one again, a few times. Raises CopilotError.
        """
        async with self._lock:
            if self._hand and self._hand.finishing:
                return None  # soon it has nothing in its hands
            if self._hand and self._is_late(self._hand) and self._hand.handed >= MOST_HANDED:
                text = f"the agent asked for a job {MOST_HANDED} times while it held this one"
                await self._fail(FailureClass.LEASE_LOST, text)
            if self._hand is None:
                await self._take(self._desk.terms.capabilities(machine))
            elif self._hand.run is None:
                await self._lay_out(self._hand)
            if self._hand is None:
                return None
            return self._handed(self._hand)

    def _handed(self, hand: Hand) -> RunJob | None:
        if self._is_late(hand):
            hand.handed, hand.handed_at = hand.handed + 1, self._desk.now()
        if self._voice:
            self._voice.say((hand.key, Phase.RUNNING))
        return hand.run

    def _is_late(self, hand: Hand) -> bool:
        """Who asks again sooner has not been restarted, but asked while we were slow."""
        return self._desk.now() >= hand.handed_at + self._desk.terms.restart

    async def finish(self, key: Key, job_id: str, done: JobDone) -> Report | None:
        """Takes the outputs and reports; returns once that is committed.

        None if the attempt has ended before: what comes now is too late. Raises CopilotError where
        it has to be tried again, until which it stays in the agent's hands.
        """
        async with self._lock:
            if self.held != key and not await self._regain(key, finishing=True):
                return None
            hand = self._hand
            if hand is None:
                return None
            hand.finishing = True
            taken = await self._desk.intake.take_in(job_id, key, hand.spec)
            if self._hand is not hand or self._voice is None:  # cancelled meanwhile, or moved
                return None
            report = report_of(key, hand.spec, done, taken, self._desk.now() - hand.since)
            await self._end(report)
            return report

    def stop_finishing(self) -> None:
        """It cannot be taken in; perhaps the agent brings it once more."""
        if self._hand:
            self._hand.finishing = False

    async def resume(self, key: Key) -> None:
        """Goes on with what was in the agent's hands before the manager was restarted."""
        async with self._lock:
            if self.held != key:
                await self._regain(key)

    async def close(self) -> None:
        """The manager stops; the agent keeps what it has."""
        await self._let_go()

    # ----- taking an attempt

    async def _take(self, capabilities: Capabilities) -> None:
        wants = Wants(
            cores=capabilities.cores,
            memory_mib=capabilities.memory_mib,
            disk_mib=capabilities.disk_mib,
        )
        voice = await self._attach(capabilities, wants)
        voice.say(capabilities=capabilities)
        offers = await _offers(voice, self._desk.terms.offer)
        if not offers:
            voice.say(wants=NOTHING)
            offers = await _offers(voice, CROSSING_SECONDS)
        if not offers:
            voice.leave()
            return
        hand = self._receive(voice, offers[0], self._desk.now())
        voice.give_back(offers[1:], hand.key)
        await self._lay_out(hand)

    async def _attach(self, capabilities: Capabilities, wants: Wants) -> Voice:
        """As the pilot that it was, or as a new one if that was retired."""
        await self._let_go()
        desk = self._desk
        pilot = desk.agents.pilot(self._agent) or await desk.agents.enrol(self._agent, capabilities)
        experiments = desk.terms.experiments
        try:
            session = await desk.pilots.attach(pilot, "copilot1", experiments)
        except CopilotError as error:
            if error.code not in (ErrorCode.PILOT_RETIRED, ErrorCode.UNAUTHENTICATED):
                raise
            pilot = await desk.agents.enrol(self._agent, capabilities)
            session = await desk.pilots.attach(pilot, "copilot1", experiments)
        self._voice = Voice(session, wants)
        return self._voice

    def _receive(self, voice: Voice, offer: Offer, since: float, finishing: bool = False) -> Hand:
        """From now on the agent is full: an original does one job at a time."""
        hand = Hand((offer.job, offer.attempt), offer.spec, since, finishing=finishing)
        voice.fill(offer.spec.requirements)
        voice.say((hand.key, Phase.STAGE_IN))
        hand.holding = asyncio.create_task(self._hold(hand, voice))
        self._hand = hand
        return hand

    async def _lay_out(self, hand: Hand) -> None:
        """Puts its inputs where the agent gets them; what cannot be is reported."""
        desk = self._desk
        place = Place(
            desk.names.job_id(self._agent, hand.key),
            desk.terms.chirp_address,
            desk.names.input_dir(self._agent, hand.key),
        )
        try:
            found = running(hand.spec, place, hand.since)
            await asyncio.to_thread(self._export, place.input_dir, found)
        except StanzaError as error:
            text = f"original agents cannot be told of this job: {error}"
            await self._fail(FailureClass.ENVIRONMENT, text)
        except OSError as error:
            log.warning("copilot1: inputs of %s cannot be laid out: %s", hand.key[0], error)
            await self._fail(FailureClass.PREEMPTED, "the manager could not lay out its inputs")
        except CopilotError as error:
            await self._fail(FailureClass.STAGE_IN, error.message)
        else:
            hand.run = found.run

    def _export(self, name: str, found: Running) -> None:
        files = {local: self._desk.files.blob_path(sha) for local, sha in found.files.items()}
        self._desk.chirp.export(name, files, {SCRIPT: found.script} if found.script else {})

    async def _regain(self, key: Key, *, finishing: bool = False) -> bool:
        """Whether the attempt is still the agent's; then it is in its hands here, too."""
        try:
            await self._desk.pilots.require_open(*key)
        except RefusedError:
            return False
        voice = await self._attach(self._resumed, NOTHING)
        voice.say()
        known = self._desk.pilots.watched(*key)
        since = known.leased_at if known else self._desk.now()
        while offers := await _offers(voice, SOON_SECONDS):
            for offer in offers:
                if (offer.job, offer.attempt) == key:
                    self._receive(voice, offer, since, finishing)
                    return True
        voice.leave()
        return False

    # ----- while the agent works

    async def _hold(self, hand: Hand, voice: Voice) -> None:
        """Renews the lease, as the agent cannot, until it has had its time or is told to stop."""
        terms = self._desk.terms
        try:
            while hand.finishing or self._has_time(hand):
                frame = await voice.hear(terms.heartbeat)
                if frame and (order := _order_about(frame, hand.key)):
                    await self._obey(order, hand, voice)
                    break
                voice.give_back(frame.offers if frame else (), hand.key)
                voice.say((hand.key, Phase.RUNNING))
            else:
                await self._lose(hand, voice)
        except SessionClosedError as error:
            log.info(
                "copilot1: %s does not hold %s any more: %s", self._agent, *hand.key[:1], error
            )
        except CopilotError as error:
            log.warning("copilot1: %s: %s", self._agent, error)
        if self._hand is hand:
            self._hand = None
            voice.leave()

    async def _lose(self, hand: Hand, voice: Voice) -> None:
        """Another pilot gets the job; an agent that lives after all works on in vain."""
        why = "is gone" if self._gone_since is not None else "had its time"
        log.warning("copilot1: %s %s, and has not brought %s", self._agent, why, hand.key[0])
        text = f"the agent {why}: nothing came from it"
        await voice.report(ended(hand.key, FailureClass.LEASE_LOST, text))

    def _has_time(self, hand: Hand) -> bool:
        now, terms = self._desk.now(), self._desk.terms
        there = self._gone_since is None or now < self._gone_since + terms.gone
        return there and now < hand.since + terms.job

    async def _obey(self, order: CommandKind, hand: Hand, voice: Voice) -> None:
        """The agent cannot be stopped; it works on, and what it brings is too late."""
        log.info("copilot1: %s of %s: %s works on in vain", order, hand.key[0], self._agent)
        if order is not CommandKind.ABANDON:
            await voice.report(ended(hand.key, FailureClass.CANCELLED, "cancelled"))

    # ----- the end of an attempt

    async def _fail(self, failure_class: FailureClass, message: str) -> None:
        if self._hand:
            log.info("copilot1: %s at %s: %s", self._hand.key[0], self._agent, message)
            await self._end(ended(self._hand.key, failure_class, message))

    async def _end(self, report: Report) -> None:
        hand, voice = self._hand, self._voice
        if hand is None or voice is None:
            return
        await _cancelled(hand.holding)
        try:
            verdict = await voice.report(report)
        except CopilotError:
            if self._hand is hand:
                hand.holding = asyncio.create_task(self._hold(hand, voice))
            raise
        log.info("copilot1: %s by %s: %s", hand.key[0], self._agent, verdict.verdict.value)
        self._hand = None
        await asyncio.to_thread(self._clear, hand.key)
        voice.leave()

    def _clear(self, key: Key) -> None:
        self._desk.chirp.remove(self._desk.names.input_dir(self._agent, key))
        self._desk.chirp.remove(self._desk.names.job_id(self._agent, key))

    async def _let_go(self) -> None:
        hand, voice, self._hand, self._voice = self._hand, self._voice, None, None
        if hand:
            await _cancelled(hand.holding)
        if voice:
            voice.close()


async def _offers(voice: Voice, seconds: float) -> tuple[Offer, ...]:
    """The next ones. A frame without is no reason to wait longer."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0 and (frame := await voice.hear(left)):
        if frame.offers:
            return frame.offers
    return ()


def _order_about(frame: ManagerFrame, key: Key) -> CommandKind | None:
    for command in frame.commands:
        about = (command.job, command.attempt) == key
        if command.kind is CommandKind.RETIRE or (
            about and command.kind in (CommandKind.CANCEL, CommandKind.ABANDON)
        ):
            return command.kind
    return None


async def _cancelled(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
