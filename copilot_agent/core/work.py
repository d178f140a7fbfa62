"""All attempts that a pilot holds, from offers to verdicts; transition table in attempts.py."""

from collections import OrderedDict
from dataclasses import replace

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.attempts import (
    NOT_BEGUN,
    UNFINISHED,
    Attempt,
    Ending,
    Stage,
    report_of_end,
    report_of_ending,
    stage_out_offer,
)
from copilot_agent.core.backoff import doubled
from copilot_agent.core.effects import Effect
from copilot_agent.core.events import Key
from copilot_agent.core.room import never_fits, ready_to_run, ready_to_stage
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Offer, Report, Verdict, VerdictKind
from copilot_agent.protocol.job import FailureClass, Outcome

MAX_HELD = 1000
MAX_REMEMBERED = 4096
STAGING_PAUSE = 60.0
"""Seconds between two tries of a transfer, at most; they begin with 2."""
STAGING_TRIES = 8
"""Tries of a transfer while the manager is there; while it is away transfers just wait."""


class Work:
    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.attempts: OrderedDict[Key, Attempt] = OrderedDict()
        self.news = False
        """The manager should hear soon."""
        self.list_changed = False
        """What is unfinished must be noted before anything else is done."""
        self._room_changed = False
        """Something may go on that could not before."""
        self._retrying = False
        """A transfer may be waiting to be tried again."""
        self.succeeded = 0
        self.failed = 0
        self.cpu_seconds = 0.0
        self._ended: OrderedDict[str, int] = OrderedDict()
        """Highest attempt of each job that is over, so that a late offer does not run again."""

    # ----- what is held

    def held(self, job: str | None, attempt: int | None) -> list[Attempt]:
        """`attempt` None: all of the job's."""
        return [
            a
            for a in self.attempts.values()
            if a.key.job == job and attempt in (None, a.key.attempt)
        ]

    @property
    def unfinished(self) -> tuple[Key, ...]:
        return tuple(a.key for a in self.attempts.values() if a.stage in UNFINISHED)

    @property
    def running(self) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.stage is Stage.RUNNING]

    @property
    def next_retry(self) -> float | None:
        if not self._retrying:
            return None
        return min((a.retry_at for a in self.attempts.values() if a.retry_at), default=None)

    # ----- offers

    def recover(self, event: ev.Started) -> list[Effect]:
        """Takes over what an agent left that died in this boot."""
        for report in event.spooled:
            key = Key(report.job, report.attempt)
            self.attempts[key] = Attempt(key, None, Stage.REPORTING, report=report)
        effects: list[Effect] = []
        lost = Ending(Outcome.FAILED, FailureClass.HOST, "the agent died and was started again")
        for key in event.unfinished:
            if key not in self.attempts:
                attempt = self.attempts[key] = Attempt(key, None)
                effects += self._settle(attempt, report_of_ending(attempt, lost))
        return effects

    def accept(self, offer: Offer, refusal: str) -> list[Effect]:
        """`refusal`: why this pilot takes nothing now, empty if it does."""
        key = Key(offer.job, offer.attempt)
        others = self.held(offer.job, None)
        newest = max([self._ended.get(offer.job, 0), *(a.key.attempt for a in others)])
        if offer.attempt <= newest or len(self.attempts) >= MAX_HELD:
            self.news = True  # the manager repeats offers until it sees what is held
            return []
        effects: list[Effect] = []
        for older in others:
            effects += self.end(older, abandoned("a newer attempt of the same job was offered"))
        attempt = self.attempts[key] = Attempt(key, offer)
        self.news = self.list_changed = self._room_changed = True
        if refusal:
            return effects + self.end(attempt, given_back(FailureClass.PREEMPTED, refusal))
        if lacks := never_fits(attempt.needs, self.capabilities):
            return effects + self.end(
                attempt, given_back(FailureClass.HOST, f"this pilot cannot run it: {lacks}")
            )
        return effects

    def schedule(self, now: float) -> list[Effect]:
        self._end_pauses(now)
        if not self._room_changed:
            return []
        self._room_changed = False
        effects: list[Effect] = []
        for attempt in ready_to_run(self.attempts.values(), self.capabilities):
            effects.append(do.StartPayload(self._move(attempt, Stage.RUNNING)))
            attempt.started_at = now
        for attempt in ready_to_stage(self.attempts.values(), self.capabilities, now):
            effects.append(do.StageIn(self._move(attempt, Stage.STAGING_IN)))
        return effects

    def _end_pauses(self, now: float) -> None:
        """Before stage-in is tried again, as soon as there is room for it."""
        due = self.next_retry
        self._retrying = due is not None
        if due is None or due > now:
            return
        for attempt in self.attempts.values():
            if attempt.stage is Stage.QUEUED and (attempt.retry_at or now) <= now:
                attempt.retry_at = None
                self._room_changed = True

    def retry_stage_out(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.next_retry is None:
            return effects
        for attempt in self.attempts.values():
            due = attempt.retry_at is not None and attempt.retry_at <= now
            if due and attempt.stage is Stage.STAGING_OUT:
                attempt.retry_at = None
                effects.append(do.StageOut(stage_out_offer(attempt)))
        return effects

    def _move(self, attempt: Attempt, stage: Stage) -> Offer:
        attempt.move(stage)
        self.news = self._room_changed = True
        if attempt.offer is None:
            raise AssertionError(f"{attempt.key}: no offer")
        return attempt.offer

    # ----- staging

    def staging(self, event: ev.StagingEvent, now: float, attached: bool) -> list[Effect]:
        attempt = self.attempts.get(event.key)
        if attempt is None:
            return []
        if attempt.ending is not None and attempt.stage in (Stage.STAGING_IN, Stage.STAGING_OUT):
            return self._leave(attempt, attempt.ending)
        match event:
            case ev.StagedIn():
                return self._staged_in(attempt, event)
            case ev.StagedOut():
                return self._staged_out(attempt, event)
            case ev.StageInFailed() if event.retryable and self._retry(
                attempt, now, attached, event.jitter
            ):
                return []
            case ev.StageInFailed():
                attempt.retry_at = None
                return self._fail(attempt, FailureClass.STAGE_IN, event.message)
            case ev.StageOutFailed() if event.retryable and self._retry(
                attempt, now, attached, event.jitter
            ):
                return []
            case ev.StageOutFailed():
                return self._stage_out_failed(attempt, event)
            case ev.StagingStopped():
                return []

    def _staged_in(self, attempt: Attempt, event: ev.StagedIn) -> list[Effect]:
        attempt.move(Stage.STAGED)
        self._room_changed = True
        attempt.retries = 0
        attempt.links_wanted = False
        attempt.stage_in_seconds += event.seconds
        attempt.stage_in_bytes = event.moved_bytes
        return []

    def _staged_out(self, attempt: Attempt, event: ev.StagedOut) -> list[Effect]:
        attempt.stage_out_seconds += event.seconds
        return self._settle(attempt, report_of_end(attempt, event.outputs))

    def _stage_out_failed(self, attempt: Attempt, event: ev.StageOutFailed) -> list[Effect]:
        if attempt.failed:  # the logs could not be moved; the payload's own failure says more
            return self._settle(attempt, report_of_end(attempt, ()))
        if (
            event.failure_class in (FailureClass.PAYLOAD, FailureClass.PAYLOAD_LIMIT)
            and attempt.end
        ):
            attempt.end = replace(
                attempt.end, failure_class=event.failure_class, message=event.message
            )
            return [do.StageOut(stage_out_offer(attempt))]  # its logs are wanted all the same
        return self._fail(attempt, event.failure_class, event.message)

    def _retry(self, attempt: Attempt, now: float, attached: bool, jitter: float) -> bool:
        attempt.retries += 1 if attached else 0
        if attempt.retries >= STAGING_TRIES:
            return False
        if attempt.stage is Stage.STAGING_IN:
            attempt.move(Stage.QUEUED)
        self._retrying = True
        attempt.retry_at = now + doubled(2.0, max(attempt.retries, 1), STAGING_PAUSE, jitter)
        return True

    def _fail(self, attempt: Attempt, failure_class: FailureClass, message: str) -> list[Effect]:
        return self._leave(attempt, Ending(Outcome.FAILED, failure_class, message))

    # ----- payload

    def payload_started(self, event: ev.PayloadStarted) -> list[Effect]:
        if attempt := self.attempts.get(event.key):
            attempt.started_wall = event.wall_time
            self.news = True
        return []

    def payload_ended(self, event: ev.PayloadEnded) -> list[Effect]:
        attempt = self.attempts.get(event.key)
        if attempt is None or attempt.stage is not Stage.RUNNING:
            return []
        attempt.end = event
        self.cpu_seconds += event.usage.cpu_seconds
        if attempt.ending is not None:
            return self._leave(attempt, attempt.ending)
        self._move(attempt, Stage.STAGING_OUT)
        return [do.StageOut(stage_out_offer(attempt))]

    # ----- endings

    def end(self, attempt: Attempt, ending: Ending) -> list[Effect]:
        """Ends an attempt from outside; the first reason stays, but `abandoned` beats all."""
        if attempt.ending is not None:
            if ending.outcome is None:
                attempt.ending = ending
            return []
        match attempt.stage:
            case Stage.QUEUED | Stage.STAGED:
                return self._leave(attempt, ending)
            case Stage.STAGING_OUT if attempt.retry_at is not None:
                return self._leave(attempt, ending)
            case Stage.STAGING_IN | Stage.STAGING_OUT:
                attempt.ending = ending
                return [do.StopStaging(attempt.key)]
            case Stage.RUNNING:
                attempt.ending = ending
                return [do.Kill(attempt.key, ending.failure_class, ending.message)]
            case Stage.SPOOLING:
                attempt.ending = ending if ending.outcome is None else None
                return []
            case Stage.REPORTING:
                return self.forget(attempt) if ending.outcome is None else []

    def end_all(self, ending: Ending) -> list[Effect]:
        """What only has to be moved out still may finish, unless it is all abandoned."""
        effects: list[Effect] = []
        for attempt in list(self.attempts.values()):
            if attempt.stage is not Stage.STAGING_OUT or ending.outcome is None:
                effects += self.end(attempt, ending)
        return effects

    def end_unbegun(self, ending: Ending) -> list[Effect]:
        """What waits for its payload's start."""
        effects: list[Effect] = []
        for attempt in list(self.attempts.values()):
            if attempt.stage in NOT_BEGUN:
                effects += self.end(attempt, ending)
        return effects

    def _leave(self, attempt: Attempt, ending: Ending) -> list[Effect]:
        if ending.outcome is None:
            return self.forget(attempt)
        return self._settle(attempt, report_of_ending(attempt, ending))

    def _settle(self, attempt: Attempt, report: Report) -> list[Effect]:
        attempt.report = report
        attempt.ending = None
        attempt.links_wanted = False
        attempt.move(Stage.SPOOLING)
        self._room_changed = True
        return [do.SpoolReport(report), do.CleanUp(attempt.key), _end_note(attempt.key, report)]

    def report_spooled(self, event: ev.ReportSpooled) -> list[Effect]:
        attempt = self.attempts.get(event.key)
        if attempt is None or attempt.stage is not Stage.SPOOLING:
            return []
        attempt.move(Stage.REPORTING)
        if attempt.ending is not None:
            return self.forget(attempt)
        self.news = True
        return []

    def verdict(self, verdict: Verdict) -> list[Effect]:
        attempt = self.attempts.get(Key(verdict.job, verdict.attempt))
        if attempt is None or attempt.stage is not Stage.REPORTING:
            return []
        effects: list[Effect] = []
        if verdict.verdict is VerdictKind.ACCEPTED and attempt.report:
            succeeded = attempt.report.outcome is Outcome.SUCCEEDED
            self.succeeded += succeeded
            self.failed += not succeeded
        else:
            text = f"report {verdict.verdict.value}: {verdict.reason}"
            effects.append(do.Note("warning", text, attempt.key))
        return effects + self.forget(attempt)

    def forget(self, attempt: Attempt) -> list[Effect]:
        """Nothing of it is left here, and it will not be run again."""
        del self.attempts[attempt.key]
        job, number = attempt.key
        self._ended[job] = max(number, self._ended.pop(job, 0))
        while len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)
        self.news = self.list_changed = self._room_changed = True
        effects: list[Effect] = [do.DropReport(attempt.key)] if attempt.report else []
        if attempt.stage in UNFINISHED:
            effects.append(do.CleanUp(attempt.key))
        return effects

    def note_unfinished(self) -> list[Effect]:
        """First of an event's effects; one whose report is on disk already may stand there too."""
        if not self.list_changed:
            return []
        self.list_changed = False
        return [do.KeepUnfinished(self.unfinished)]


def abandoned(message: str) -> Ending:
    return Ending(None, FailureClass.LEASE_LOST, message)


def given_back(failure_class: FailureClass, message: str) -> Ending:
    return Ending(Outcome.FAILED, failure_class, message)


def _end_note(key: Key, report: Report) -> do.Note:
    if report.outcome is Outcome.SUCCEEDED:
        return do.Note("info", "succeeded", key)
    kind = report.failure_class.value if report.failure_class else report.outcome.value
    return do.Note("info", f"{report.outcome.value} ({kind}): {report.message}", key)
