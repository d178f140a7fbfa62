"""Lets the ordinary agent work for original managers: plays the modern manager toward it.

To the pilot this is a carrier of frames that always answers; behind it `core/copilot1` decides what
is said over the account of Co-Pilot 1. The pilot's wants become want_getJob, a runJob an offer, a
report jobDone, and its acknowledgement a verdict.
"""

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import assert_never

from copilot_agent.core.copilot1 import words as w
from copilot_agent.core.copilot1.worker import Worker
from copilot_agent.core.events import TransportTrouble
from copilot_agent.identity import Grant
from copilot_agent.payload.staging import StageInError, StageOutError
from copilot_agent.protocol.copilot1.job_commands import Command, GetJob, Job, WantJob
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.protocol.ids import make_id
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.copilot1.assignments import Assignments
from copilot_agent.transports.copilot1.chirp import ChirpError
from copilot_agent.transports.copilot1.jobs import STDERR, Terms, specification
from copilot_agent.transports.copilot1.letters import Answer, Letters
from copilot_agent.transports.copilot1.machine import host_name, machine
from copilot_agent.transports.copilot1.packing import Packing
from copilot_agent.transports.copilot1.staging import put_archive
from copilot_agent.transports.copilot1.standin import FAILED, StandIn
from copilot_agent.xmpp.stream import StanzaStream

log = logging.getLogger(__name__)

FOR_EVER = 1e7
ONLINE_SECONDS = 60.0
EXPLAIN_TRIES, EXPLAIN_PAUSE = 3, 5.0
DIED = "the agent died and was started again"


@dataclass(frozen=True)
class Employer:
    """For whom, and how."""

    managers: str
    """The bare address that all instances share."""
    state: Path
    scratch: Path
    terms: Terms
    timers: w.Timers = field(default_factory=w.Timers)
    room: str = ""


def new_id(kind: str) -> str:
    return make_id(kind, time.time(), secrets.randbits(50))


class Carrier:
    """A `Transport`, its `Grants` and the staging's `Desk`; `run` it beside the agent."""

    def __init__(
        self, stream: StanzaStream, employer: Employer, answer: Answer | None = None
    ) -> None:
        """Made while a loop runs. `answer`: see `Letters`."""
        self._employer = employer
        self._letters = Letters(
            stream,
            employer.managers,
            self._handle,
            self._sent,
            room=employer.room,
            answer=answer,
        )
        self.terms = employer.terms
        self._kept = Assignments(employer.state)
        self.outgoing = employer.state / "outgoing"
        self.outgoing.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.outgoing.iterdir():
            left.unlink()
        self._pilot = new_id("p")
        self._standin = StandIn(new_id)
        self._jobs: dict[str, Job | str] = {}
        """By our own ids; text is why one is refused."""
        self._places: dict[str, asyncio.Future[str]] = {}
        self._frames: asyncio.Queue[ManagerFrame | None] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = asyncio.TaskGroup()
        self._worker = self._new_worker()
        for each in self._worker.assignments:
            if each.told:
                self._standin.close(each.key)

    def _new_worker(self) -> Worker:
        now, timers = asyncio.get_running_loop().time(), self._employer.timers
        wait = timers.request_gap - self._kept.seconds_since_asked()
        return Worker(
            self._employer.managers,
            new_id=lambda: str(uuid.uuid4()),
            new_key=partial(new_id, "j"),
            now=now,
            timers=timers,
            earlier=self._kept.kept(),
            ask_at=now + max(0.0, wait),
        )

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with self._tasks:
                await self._letters.run()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    # ----- the pilot's side: Transport and Grants

    async def grant(self, renew: bool) -> Grant:  # noqa: ARG002 - there is nothing to renew
        """Co-Pilot 1 knows no tokens."""
        until = asyncio.get_running_loop().time() + FOR_EVER
        return Grant(pilot=self._pilot, token="none", valid_until=until)  # noqa: S106

    def use_token(self, token: str) -> None:
        pass

    async def connect(self, token: str) -> None:  # noqa: ARG002
        """Only the first login is waited for: later the account comes back by itself."""
        try:
            async with asyncio.timeout(ONLINE_SECONDS):
                await self._letters.wait_online()
        except TimeoutError:
            text = "the XMPP account is not logged in yet"
            raise TransportError(TransportTrouble.UNREACHABLE, text) from None
        self._frames = asyncio.Queue()
        self._standin.attach()

    async def send(self, frame: PilotFrame) -> None:
        events = self._standin.take(frame)
        if frame.session is None:
            events += self._died()
        self._handle(*events)
        known = {each.key for each in self._worker.assignments}
        for report in frame.reports:
            if report.job not in known:
                self._standin.close(report.job, "nobody is known to have given this job")
        self._answer()

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def close(self) -> None:
        self._frames.put_nowait(None)

    def _answer(self) -> None:
        self._frames.put_nowait(self._standin.frame(time.time()))

    def _died(self) -> list[w.Event]:
        """Jobs that an earlier agent took and that the pilot knows nothing of."""
        lost = [
            each.key
            for each in self._worker.assignments
            if each.exit_status is None and each.key not in self._standin.held
        ]
        for key in lost:
            self._standin.reasons[key] = DIED
        return [w.Ended(key, FAILED, 0.0) for key in lost]

    # ----- the staging's side: Desk

    def given(self, key: str) -> Job:
        """See `Desk`."""
        job = self._jobs.get(key, DIED)
        if isinstance(job, str):
            raise StageInError(job, retryable=False)
        return job

    async def place(self, key: str, validate_exit_status: int | None) -> str:
        """See `Desk`."""
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._places[key] = place
        try:
            self._handle(w.PlaceWanted(key, validate_exit_status))
            return await place
        finally:
            self._places.pop(key, None)

    # ----- the core

    def _handle(self, *events: w.Event) -> None:
        loop = asyncio.get_running_loop()
        for effect in self._worker.handle(*events, now=loop.time()):
            self._perform(effect)
        if self._timer is not None:
            self._timer.cancel()
        due = self._worker.next_due
        self._timer = None if due is None else loop.call_at(due, self._handle, w.Tick())

    def _perform(self, effect: w.Effect) -> None:
        match effect:
            case w.Say():
                self._letters.say(effect.to, effect.id, self._dressed(effect.command))
            case w.Keep() | w.Drop():
                self._keep(effect)
            case w.Place() | w.NoPlace():
                self._found(effect)
            case w.Take() | w.Told() | w.Cancel():
                self._tell_pilot(effect)
            case w.Note():
                log.log(logging.getLevelNamesMapping()[effect.level.upper()], effect.message)
            case _:
                assert_never(effect)

    def _dressed(self, command: Command) -> Command:
        update: dict[str, object] = {"agent_host": host_name()}
        if isinstance(command, WantJob | GetJob):
            update["machine"] = machine(self._employer.scratch)
        return command.model_copy(update=update)

    def _sent(self, command: Command) -> None:
        if isinstance(command, WantJob):
            try:
                self._kept.asked()
            except OSError as error:
                log.error("cannot note when a job was asked for: %s", error)

    def _keep(self, effect: w.Keep | w.Drop) -> None:
        """With a full disk this agent goes on; only the one after it will not know."""
        try:
            if isinstance(effect, w.Keep):
                self._kept.keep(effect.assignment)
            else:
                self._kept.drop(effect.key)
                self._jobs.pop(effect.key, None)
        except OSError as error:
            log.error("cannot note a job of an original manager: %s", error)

    def _tell_pilot(self, effect: w.Take | w.Told | w.Cancel) -> None:
        match effect:
            case w.Take():
                self._take(effect)
            case w.Told():
                self._standin.close(effect.key, effect.given_up)
            case w.Cancel():
                self._standin.cancel(effect.key, effect.reason)
            case _:
                assert_never(effect)
        self._answer()

    def _take(self, effect: w.Take) -> None:
        made = effect.assignment
        self._keep(w.Keep(made))
        self._jobs[made.key] = effect.command.job if effect.command else effect.refusal
        log.info("%s gives job %s, which is %s here", made.giver, made.job, made.key)
        self._standin.offer(made.key, specification(made.job, self._employer.terms))

    # ----- places

    def _found(self, effect: w.Place | w.NoPlace) -> None:
        key = effect.key if isinstance(effect, w.NoPlace) else effect.assignment.key
        waiting = self._places.get(key)
        if waiting is not None and not waiting.done():
            if isinstance(effect, w.Place):
                waiting.set_result(effect.url)
            else:
                text = f"outputs: the storage says: {effect.reason}"
                waiting.set_exception(StageOutError(text, retryable=False))
        elif isinstance(effect, w.Place) and effect.assignment.exit_status is not None:
            self._tasks.create_task(self._explain(effect))

    async def _explain(self, place: w.Place) -> None:
        """Why there are no outputs, in an archive as if there were; not worth much trouble."""
        key, name = place.assignment.key, place.assignment.job
        archive = self.outgoing / f"{key}.tgz"
        reason = self._standin.reasons.get(key) or DIED
        try:
            await asyncio.to_thread(_pack_reason, archive, reason)
            await _put_patiently(archive, name, place.url)
        except (ChirpError, OSError) as error:
            log.warning("%s: cannot say why it failed: %s", name, error)
        finally:
            archive.unlink(missing_ok=True)
        self._handle(w.Explained(key))


def _pack_reason(archive: Path, reason: str) -> None:
    packing = Packing(archive, len(reason))
    packing.text(STDERR, f"{reason}\n")
    packing.close()


async def _put_patiently(archive: Path, name: str, url: str) -> None:
    for left in reversed(range(EXPLAIN_TRIES)):
        try:
            await put_archive(archive, name, url)
        except ChirpError as error:
            if not (left and error.retryable):
                raise
            await asyncio.sleep(EXPLAIN_PAUSE)
        else:
            return
