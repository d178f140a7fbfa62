"""The pilot: every event comes in here, every decision goes out as effects.

What changes on what is in the tables of attempts.py (work) and link.py (connection). The rest:

    event                          then
    ------------------------------ -------------------------------------------------------------
    PauseSoon                      SendFrame(paused), TellLauncher(PauseOk) when it is written,
                                   after 40 ms in any case; at once without a connection
    Resumed, ClockJumped           Disconnect, Connect
    DrainAsked, command drain      wants nothing, gives back what has not begun; at the deadline
                                   what is left is ended, but for what is only moved out
    StopAsked, command retire      all is ended and reported; Finish at the last verdict or deadline
    ConnectionLost(retired)        all is abandoned; Finish(3)
    heartbeat                      Measure, then SendFrame with progress and unanswered reports
"""

from dataclasses import dataclass
from typing import assert_never

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.attempts import Ending
from copilot_agent.core.backoff import half
from copilot_agent.core.drains import OPERATOR, VOLUNTEER, Drains
from copilot_agent.core.effects import Effect
from copilot_agent.core.errands import Errands
from copilot_agent.core.link import Link
from copilot_agent.core.speech import Speech
from copilot_agent.core.status import Status
from copilot_agent.core.work import Work, abandoned, given_back
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Command, CommandKind, ManagerFrame
from copilot_agent.protocol.guest import PauseOk
from copilot_agent.protocol.job import FailureClass, Outcome

PAUSE_OK_SECONDS = 0.04
PAUSE_DOUBT_SECONDS = 5.0
"""A pause that was announced and did not come is forgotten after its limit and this."""
REFUSED_SECONDS = 10.0
TOKEN_LIFE_USED, TOKEN_LIFE_MORE = 0.6, 0.2
"""A token is renewed after this share of its life, and as much of the second as chance says."""
TOKEN_RETRY_SECONDS = 60.0


@dataclass
class Leaving:
    deadline: float
    exit_code: int


@dataclass
class Pause:
    until: float
    ok_by: float | None
    sequence: int | None = None


class PilotCore:
    def __init__(self, capabilities: Capabilities, window: int, *, launcher: bool) -> None:
        self.work = Work(capabilities)
        self.link = Link()
        self.errands = Errands()
        self.status = Status(launcher)
        self.speech = Speech(capabilities, window, self.work, self.link, self.errands, self.status)
        self.finished = False
        self._drains = Drains()
        self._leaving: Leaving | None = None
        self._pause: Pause | None = None
        self._token_due: float | None = None
        self._token_jitter = 0.5
        self._timer: float | None = None

    def handle(self, *events: ev.Event, now: float) -> list[Effect]:
        """What has happened, in its order; what follows from all of it is looked for once."""
        if self.finished:
            return []
        effects = [effect for event in events for effect in self._dispatch(event, now)]
        effects += self._go_on(now)
        return self.work.note_unfinished() + effects

    @property
    def draining(self) -> bool:
        return bool(self._drains)

    @property
    def leaving(self) -> bool:
        return self._leaving is not None

    # ----- dispatch

    def _dispatch(self, event: ev.Event, now: float) -> list[Effect]:
        match event:
            case ev.Started() | ev.Tick() | ev.Measured() | ev.ClockJumped():
                return self._own(event, now)
            case (
                ev.TokenObtained()
                | ev.Connected()
                | ev.ConnectionLost()
                | ev.FrameReceived()
                | ev.FrameSent()
            ):
                return self._on_link(event, now)
            case (
                ev.StagedIn()
                | ev.StageInFailed()
                | ev.StagingStopped()
                | ev.StagedOut()
                | ev.StageOutFailed()
            ):
                return self.work.staging(event, now, self.link.attached)
            case ev.PayloadStarted() | ev.PayloadEnded() | ev.ReportSpooled() | ev.LinksWanted():
                return self._on_payload(event)
            case _:
                return self._on_host(event, now)

    def _own(self, event: ev.OwnEvent, now: float) -> list[Effect]:
        match event:
            case ev.Started():
                return self.work.recover(event)
            case ev.Tick():
                self._timer = None
                return []
            case ev.Measured():
                return self.speech.measured(event)
            case ev.ClockJumped():
                note = do.Note(
                    "warning", f"the clock jumped by {event.seconds:.0f} s; attaching again"
                )
                return [note, *self._attach_again(now)]
            case _:
                assert_never(event)

    def _on_link(self, event: ev.LinkEvent, now: float) -> list[Effect]:
        match event:
            case ev.TokenObtained():
                self.status.pilot = event.pilot
                self.speech.set_policy(event.policy, now)
                self._token_jitter = event.jitter
                used = TOKEN_LIFE_USED + TOKEN_LIFE_MORE * event.jitter
                self._token_due = now + used * event.valid_seconds
                return []
            case ev.Connected():
                made = self.link.connected(now, event.jitter)
                return [self.speech.attach(now)] if made else []
            case ev.ConnectionLost():
                return self._on_lost(event, now)
            case ev.FrameReceived():
                return self._on_frame(event.frame, now) if self.link.received(event.frame) else []
            case ev.FrameSent():
                self.link.sent(event.sequence)
                return self._pause_written(event.sequence)
            case _:
                assert_never(event)

    def _on_payload(self, event: ev.PayloadEvent) -> list[Effect]:
        match event:
            case ev.PayloadStarted():
                self.speech.with_progress = True
                return self.work.payload_started(event)
            case ev.PayloadEnded():
                return self.work.payload_ended(event)
            case ev.ReportSpooled():
                note = do.Note("error", f"report is not on disk: {event.problem}", event.key)
                return ([note] if event.problem else []) + self.work.report_spooled(event)
            case ev.LinksWanted():
                if attempt := self.work.attempts.get(event.key):
                    attempt.links_wanted = self.speech.urgent = True
                return []
            case _:
                assert_never(event)

    def _on_host(self, event: ev.HostEvent, now: float) -> list[Effect]:
        match event:
            case ev.PauseSoon():
                return self._on_pause_soon(event, now)
            case ev.Resumed():
                self._forget_pause()
                self.status.say_again()
                return self._attach_again(now)
            case ev.DrainAsked():
                return self._drain(VOLUNTEER, not event.undo, event.deadline_seconds, now)
            case ev.StopAsked():
                return self._leave(
                    event.seconds, event.failure_class, "the agent was told to stop", now
                )
            case ev.ReceiptsKept():
                self.errands.kept(event.ids)
                return []
            case _:
                assert_never(event)

    # ----- what is due after every event

    def _go_on(self, now: float) -> list[Effect]:
        effects = self._deadlines(now)
        if self._leaving is None:
            effects += self.work.schedule(now)
        effects += self.work.retry_stage_out(now)
        effects += self._left(now)
        if self.finished:
            return effects
        effects += self.link.tick(now)
        effects += self.speech.heartbeat(now)
        effects += self.speech.flush(now)
        effects += self.status.tell(self.work, self.link, self._mood)
        return effects + self._set_timer(now)

    @property
    def _mood(self) -> str:
        if self._leaving is not None:
            return "leaving"
        return "draining" if self.draining else ""

    def _deadlines(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for ending in self._drains.due(now):
            effects += self.work.end_all(ending)
        if self._pause is not None:
            if self._pause.ok_by is not None and now >= self._pause.ok_by:
                effects += self._pause_ok()
            if now >= self._pause.until:
                self._forget_pause()
                self.speech.urgent = True
        if self._token_due is not None and now >= self._token_due and self.link.attached:
            self._token_due = now + half(TOKEN_RETRY_SECONDS, self._token_jitter)
            effects.append(do.RenewToken())
        return effects

    def _set_timer(self, now: float) -> list[Effect]:
        pause = self._pause
        dues = [
            self.link.next_due,
            self.work.next_retry,
            self.speech.next_due,
            self._token_due if self.link.attached else None,
            self.status.next_due if self.status.next_due and self.work.running else None,
            self._drains.next_due,
            self._leaving.deadline if self._leaving else None,
            pause.until if pause else None,
            pause.ok_by if pause else None,
        ]
        at = min((due for due in dues if due is not None), default=None)
        if at == self._timer:
            return []
        self._timer = at
        return [do.SetTimer(at if at is None else max(at, now))]

    # ----- conversation

    def _attach_again(self, now: float) -> list[Effect]:
        for attempt in self.work.attempts.values():
            attempt.report_sent = False
        return self.link.drop(now)

    def _on_frame(self, frame: ManagerFrame, now: float) -> list[Effect]:
        effects: list[Effect] = []
        self.speech.set_policy(frame.policy, now)
        for verdict in frame.verdicts:
            effects += self.work.verdict(verdict)
        for command in self.errands.new_commands(frame.commands):
            effects += self._command(command, now)
        for offer in frame.offers:
            effects += self.work.accept(offer, self._refusal)
        for links in frame.links:
            for attempt in self.work.held(links.job, links.attempt):
                attempt.links_wanted = False
                effects.append(do.UseLinks(links))
        if receipts := self.errands.receipts_to_keep(frame.receipts):
            effects.append(do.KeepReceipts(receipts))
        return effects

    @property
    def _refusal(self) -> str:
        if self._leaving is not None:
            return "the pilot is leaving"
        return "the pilot is draining" if self.draining else ""

    def _on_lost(self, event: ev.ConnectionLost, now: float) -> list[Effect]:
        self._attach_again(now)
        self.link.lost(event, now)
        effects: list[Effect] = [
            do.Note("warning", f"no connection: {event.message}"),
            do.Disconnect(),
        ]
        if self._pause is not None and self._pause.ok_by is not None:
            effects += self._pause_ok()
        if event.trouble is ev.TransportTrouble.RETIRED:
            self.link.connect_at = None
            self.status.refusal = event.message
            self._leaving = Leaving(now + REFUSED_SECONDS, exit_code=3)
            effects += self.work.end_all(abandoned("the manager has retired this pilot"))
        return effects

    def _command(self, command: Command, now: float) -> list[Effect]:
        match command.kind:
            case CommandKind.CANCEL | CommandKind.ABANDON:
                return self._end_one(command)
            case CommandKind.DRAIN | CommandKind.UNDRAIN:
                wanted = command.kind is CommandKind.DRAIN
                return self._drain(OPERATOR, wanted, command.deadline_seconds, now)
            case CommandKind.RETIRE:
                seconds = 5.0 if command.deadline_seconds is None else command.deadline_seconds
                return self._leave(seconds, FailureClass.PREEMPTED, "the pilot was retired", now)
            case CommandKind.RENEW_TOKEN:
                return [do.RenewToken()]
            case _:
                assert_never(command.kind)

    def _end_one(self, command: Command) -> list[Effect]:
        text = command.reason or "cancelled"
        ending = Ending(Outcome.CANCELLED, FailureClass.CANCELLED, text)
        if command.kind is CommandKind.ABANDON:
            ending = abandoned(command.reason or "the lease is gone")
        effects: list[Effect] = []
        for attempt in self.work.held(command.job, command.attempt):
            effects += [do.Note("info", f"{command.kind.value}: {ending.message}", attempt.key)]
            effects += self.work.end(attempt, ending)
        return effects

    # ----- pause, drain, leave

    def _on_pause_soon(self, event: ev.PauseSoon, now: float) -> list[Effect]:
        until = now + event.seconds + PAUSE_DOUBT_SECONDS
        self._pause = Pause(until, ok_by=now + PAUSE_OK_SECONDS)
        self.speech.paused = True
        if not self.link.attached:
            return self._pause_ok()
        frame = self.speech.frame(now)
        self._pause.sequence = self.link.sequence
        return [frame]

    def _pause_written(self, sequence: int) -> list[Effect]:
        pause = self._pause
        if pause is None or pause.ok_by is None or pause.sequence != sequence:
            return []
        return self._pause_ok()

    def _forget_pause(self) -> None:
        self._pause = None
        self.speech.paused = False

    def _pause_ok(self) -> list[Effect]:
        if self._pause is not None:
            self._pause.ok_by = None
        return [do.TellLauncher(PauseOk())]

    def _drain(
        self, who: FailureClass, wanted: bool, seconds: float | None, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        if wanted:
            ending = self._drains.ask(who, None if seconds is None else now + seconds)
            effects = self.work.end_unbegun(ending)
        else:
            self._drains.undo(who)
        self.speech.taking = not (self._drains or self._leaving)
        self.speech.urgent = True
        return effects

    def _leave(
        self, seconds: float, failure_class: FailureClass, message: str, now: float
    ) -> list[Effect]:
        deadline = now + seconds
        if self._leaving is not None:
            self._leaving.deadline = min(deadline, self._leaving.deadline)
            return []
        self._leaving = Leaving(deadline, exit_code=0)
        self.speech.taking = False
        self.speech.urgent = self.speech.leaving = True
        return [do.Note("info", message), *self.work.end_all(given_back(failure_class, message))]

    def _left(self, now: float) -> list[Effect]:
        """Leaves when nothing is held any more and that was said, or at the deadline."""
        if self._leaving is None:
            return []
        told = not self.link.attached or (
            self.speech.farewell_said and not self.errands.news and self.link.in_flight is None
        )
        if (self.work.attempts or not told) and now < self._leaving.deadline:
            return []
        self.finished = True
        effects = self.status.farewell(self.work)
        return [*effects, do.Disconnect(), do.Finish(self._leaving.exit_code)]
