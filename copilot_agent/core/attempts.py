"""One attempt inside the pilot, from offer to verdict.

stage        event                         next         effects
------------ ----------------------------- ------------ --------------------------------------
-            offer                         QUEUED       KeepUnfinished (once for a frame)
QUEUED       room on the disk              STAGING_IN   StageIn
STAGING_IN   staged in                     STAGED
STAGING_IN   failed, may be tried again    QUEUED       (not before `retry_at`)
STAGING_IN   failed                        SPOOLING     SpoolReport(failed, stage_in), CleanUp
STAGED       cores and memory free         RUNNING      StartPayload
RUNNING      payload ended                 STAGING_OUT  StageOut (after a failure: logs only)
RUNNING      payload ended, `ending` set   SPOOLING     SpoolReport(ending), CleanUp
STAGING_OUT  staged out                    SPOOLING     SpoolReport(succeeded | failed), CleanUp
STAGING_OUT  failed, may be tried again    STAGING_OUT  StageOut at `retry_at`
STAGING_OUT  failed                        SPOOLING     SpoolReport(failed), CleanUp
SPOOLING     report is on disk             REPORTING    SendFrame
REPORTING    verdict                       gone         KeepUnfinished, DropReport

`ending` (cancel, abandon, drain, its deadline, stop, a newer attempt):
QUEUED, STAGED   at once SPOOLING; STAGING_IN, STAGING_OUT   StopStaging, then SPOOLING;
RUNNING          Kill, then SPOOLING; an abandoned attempt is gone instead of SPOOLING.
"""

from dataclasses import dataclass
from enum import Enum, auto

from copilot_agent.core.events import Key, PayloadEnded, Sample
from copilot_agent.protocol.frames import Offer, OutputLink, Progress, Report
from copilot_agent.protocol.job import (
    STDERR,
    STDOUT,
    FailureClass,
    Outcome,
    Output,
    Phase,
    Requirements,
    Usage,
)


class Stage(Enum):
    """Finer than `Phase`, which is what the manager sees."""

    QUEUED = auto()
    STAGING_IN = auto()
    STAGED = auto()
    RUNNING = auto()
    STAGING_OUT = auto()
    SPOOLING = auto()
    REPORTING = auto()


NEXT: dict[Stage, frozenset[Stage]] = {
    Stage.QUEUED: frozenset({Stage.STAGING_IN, Stage.SPOOLING}),
    Stage.STAGING_IN: frozenset({Stage.STAGED, Stage.QUEUED, Stage.SPOOLING}),
    Stage.STAGED: frozenset({Stage.RUNNING, Stage.SPOOLING}),
    Stage.RUNNING: frozenset({Stage.STAGING_OUT, Stage.SPOOLING}),
    Stage.STAGING_OUT: frozenset({Stage.SPOOLING}),
    Stage.SPOOLING: frozenset({Stage.REPORTING}),
    Stage.REPORTING: frozenset(),
}

PHASES = {
    Stage.QUEUED: Phase.QUEUED,
    Stage.STAGING_IN: Phase.STAGE_IN,
    Stage.STAGED: Phase.QUEUED,
    Stage.RUNNING: Phase.RUNNING,
    Stage.STAGING_OUT: Phase.STAGE_OUT,
    Stage.SPOOLING: Phase.REPORTING,
    Stage.REPORTING: Phase.REPORTING,
}

UNFINISHED = frozenset(Stage) - {Stage.REPORTING}
NOT_BEGUN = frozenset({Stage.QUEUED, Stage.STAGING_IN, Stage.STAGED})
ON_DISK = frozenset({Stage.STAGING_IN, Stage.STAGED, Stage.RUNNING, Stage.STAGING_OUT})


@dataclass(frozen=True)
class Ending:
    """Why an attempt is ended from outside. Without `outcome` nothing is reported."""

    outcome: Outcome | None
    failure_class: FailureClass
    message: str


@dataclass
class Attempt:
    """`offer` is None for what an earlier agent left: then there is only a report."""

    key: Key
    offer: Offer | None
    stage: Stage = Stage.QUEUED
    ending: Ending | None = None
    end: PayloadEnded | None = None
    report: Report | None = None
    report_sent: bool = False
    """In the present session."""
    links_wanted: bool = False
    retries: int = 0
    retry_at: float | None = None
    started_wall: float | None = None
    started_at: float = 0.0
    stage_in_seconds: float = 0.0
    stage_in_bytes: int = 0
    stage_out_seconds: float = 0.0
    sample: Sample | None = None
    tail_sent: str = ""

    def move(self, stage: Stage) -> None:
        if stage not in NEXT[self.stage]:
            raise AssertionError(f"{self.key}: no way from {self.stage.name} to {stage.name}")
        self.stage = stage
        self.retry_at = None

    @property
    def phase(self) -> Phase:
        return PHASES[self.stage]

    @property
    def needs(self) -> Requirements:
        return self.offer.spec.requirements if self.offer else Requirements()

    @property
    def failed(self) -> bool:
        """The payload ended, and not well."""
        return self.end is not None and (
            self.end.failure_class is not None or self.end.exit_code != 0
        )

    def progress(self, now: float, with_tail: bool) -> Progress:
        usage = self.sample.usage if self.sample else Usage()
        tail = self.sample.log_tail if self.sample and with_tail else None
        if tail == self.tail_sent:
            tail = None
        elif tail is not None:
            self.tail_sent = tail
        running = self.stage is Stage.RUNNING
        return Progress(
            job=self.key.job,
            attempt=self.key.attempt,
            phase=self.phase,
            fraction=self.sample.fraction if self.sample else None,
            cpu_seconds=usage.cpu_seconds,
            memory_bytes=usage.peak_memory_bytes,
            wall_seconds=max(0.0, now - self.started_at) if running else usage.wall_seconds,
            started_at=self.started_wall,
            log_tail=tail,
        )


def stage_out_offer(attempt: Attempt) -> Offer:
    """What is moved after the payload: everything declared, or the logs alone after a failure."""
    offer = attempt.offer
    if offer is None:
        raise AssertionError(f"{attempt.key}: nothing to stage out")
    if not attempt.failed:
        return offer
    logs: list[OutputLink] = [link for link in offer.outputs if link.name in (STDOUT, STDERR)]
    return offer.model_copy(update={"outputs": tuple(logs)})


def report_of_end(attempt: Attempt, outputs: tuple[Output, ...]) -> Report:
    """The payload's own end, after stage-out."""
    end = attempt.end
    if end is None:
        raise AssertionError(f"{attempt.key}: the payload has not ended")
    failure_class = end.failure_class
    if failure_class is None and attempt.failed:
        failure_class = FailureClass.PAYLOAD
    return Report(
        job=attempt.key.job,
        attempt=attempt.key.attempt,
        outcome=Outcome.FAILED if failure_class else Outcome.SUCCEEDED,
        exit_code=end.exit_code,
        signal=end.signal,
        failure_class=failure_class,
        message=end.message[:2000],
        usage=usage_of(attempt, outputs),
        outputs=outputs,
    )


def report_of_ending(attempt: Attempt, ending: Ending) -> Report:
    """An end from outside, or a failure of staging."""
    return Report(
        job=attempt.key.job,
        attempt=attempt.key.attempt,
        outcome=Outcome.CANCELLED if ending.outcome is Outcome.CANCELLED else Outcome.FAILED,
        failure_class=ending.failure_class,
        exit_code=attempt.end.exit_code if attempt.end else None,
        signal=attempt.end.signal if attempt.end else None,
        message=ending.message[:2000],
        usage=usage_of(attempt, ()),
    )


def usage_of(attempt: Attempt, outputs: tuple[Output, ...]) -> Usage:
    base = attempt.end.usage if attempt.end else Usage()
    return base.model_copy(
        update={
            "stage_in_seconds": attempt.stage_in_seconds,
            "stage_in_bytes": attempt.stage_in_bytes,
            "stage_out_seconds": attempt.stage_out_seconds,
            "stage_out_bytes": sum(output.size for output in outputs),
        }
    )
