"""What the end of an attempt means for its job: verdicts, retries, dead letters.

    attempt of the report            verdict      job becomes
    -------------------------------  -----------  ------------------------------------------
    unknown, or another pilot's      rejected     unchanged
    open                             accepted     succeeded | see `after_failure`
    ended by this same report        accepted     unchanged (the report was repeated)
    ended otherwise (lost, released,
    cancelled, reported differently) superseded   unchanged; the report is recorded

An attempt is open while it is its job's newest one and the job is leased or running, so the
attempt's number is the fence: nothing that happens to an older one moves the job.
"""

from dataclasses import dataclass

from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.job import FailureClass, JobState, Outcome

MAX_UNCHARGED = 50
"""Ends that cost nothing; beyond this many the job is a dead letter, so nothing loops for ever."""

_GIVEN_BACK = frozenset({FailureClass.PREEMPTED, FailureClass.VOLUNTEER_LEFT})


@dataclass(slots=True)
class Standing:
    """A job and one of its attempts, as stored."""

    state: JobState
    max_attempts: int
    charged: int
    """Attempts that counted against `max_attempts`."""
    uncharged: int
    pilot: str
    """Who had the attempt."""
    open: bool
    accepted: bool
    """A report of this attempt was accepted."""


@dataclass(slots=True)
class Ending:
    """How an attempt ends, and what its job becomes."""

    state: JobState
    outcome: Outcome
    failure_class: FailureClass | None
    charged: bool

    @property
    def succeeded(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    @property
    def failed(self) -> bool:
        """It speaks against the pilot; what was only given back does not."""
        return self.outcome is Outcome.FAILED and self.failure_class not in _GIVEN_BACK

    def failures(self, standing: Standing) -> int:
        """How often a job that goes on has failed like this; 0: it need not rest.

        A broken host takes jobs as fast as it fails them, so its failures count here too.
        """
        if self.state is not JobState.WAITING:
            return 0
        if self.charged:
            return standing.charged + 1
        return standing.uncharged + 1 if self.failure_class is FailureClass.HOST else 0


@dataclass(slots=True)
class Judgement:
    """`ending` is None where nothing changes; `record` says that the report is worth keeping."""

    verdict: VerdictKind
    reason: str = ""
    ending: Ending | None = None
    record: bool = False


def judge(standing: Standing | None, pilot: str, report: Report) -> Judgement:
    """Decides on a report."""
    if standing is None:
        return Judgement(VerdictKind.REJECTED, "no such job and attempt")
    if standing.pilot != pilot:
        return Judgement(VerdictKind.REJECTED, "this attempt belongs to another pilot")
    if standing.open:
        return Judgement(VerdictKind.ACCEPTED, ending=_reported(standing, report))
    if standing.accepted:
        return Judgement(VerdictKind.ACCEPTED, "was accepted before")
    return Judgement(
        VerdictKind.SUPERSEDED, f"the attempt had ended; the job is {standing.state}", record=True
    )


def end(standing: Standing, failure_class: FailureClass) -> Ending | None:
    """Ends an attempt without a report (lost, released); None if it has ended already."""
    if not standing.open:
        return None
    outcome = Outcome.CANCELLED if failure_class is FailureClass.CANCELLED else Outcome.LOST
    return _after_failure(standing, outcome, failure_class)


def _reported(standing: Standing, report: Report) -> Ending:
    outcome = Outcome(report.outcome)
    if outcome is Outcome.SUCCEEDED:
        return Ending(JobState.SUCCEEDED, outcome, None, charged=True)
    default = FailureClass.CANCELLED if outcome is Outcome.CANCELLED else FailureClass.PAYLOAD
    return _after_failure(standing, outcome, report.failure_class or default)


def _after_failure(standing: Standing, outcome: Outcome, failure_class: FailureClass) -> Ending:
    charged = failure_class.costs_attempt
    used_up = (
        standing.charged + 1 >= standing.max_attempts
        if charged
        else standing.uncharged + 1 >= MAX_UNCHARGED
    )
    state = JobState.FAILED if used_up else JobState.WAITING
    return Ending(state, outcome, failure_class, charged)
