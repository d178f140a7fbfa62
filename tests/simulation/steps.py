"""The steps of a job's life, who is at which, and how often a fault met which.

Steps as in the fault matrix:

    asked       a claim is on its way to the database
    granted     the claim is committed, its pilot does not know
    held        the pilot has the offer
    stage-in    inputs are moved
    running     the payload runs
    exited      the payload has ended, nothing else has happened
    uploading   outputs are half moved
    uploaded    outputs are moved, the report is not sent
    reported    the report is sent, no verdict has come
    committed   the report is committed, the pilot does not know
    told        the experiment's scheduler is told, and has not answered
    credited    the launcher has the receipt, the manager does not know
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    ASKED = "asked"
    GRANTED = "granted"
    HELD = "held"
    STAGE_IN = "stage-in"
    RUNNING = "running"
    EXITED = "exited"
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    REPORTED = "reported"
    COMMITTED = "committed"
    TOLD = "told"
    CREDITED = "credited"


ORDER = {step: number for number, step in enumerate(Step)}
ALL = "*"
"""Instead of a pilot: every pilot's jobs."""
Hits = Counter[tuple[str, str]]
"""(fault, step) → how often."""
Entered = Callable[[Step, str, str], None]


class Steps:
    """Follows jobs from inside the simulation; the checker sees nothing of it."""

    def __init__(self) -> None:
        self._at: dict[str, tuple[Step, str]] = {}
        """Job → step, and the host whose pilot has it."""
        self.entered: Entered = lambda _step, _job, _host: None

    def enter(self, step: Step, job: str, host: str = "") -> None:
        before = self._at.get(job)
        self._at[job] = (step, host or (before[1] if before else ""))
        self.entered(step, job, self._at[job][1])

    def asked(self, host: str) -> None:
        """Which job it will be is not known yet."""
        self.entered(Step.ASKED, "", host)

    def held(self, job: str, host: str) -> None:
        """An offer came; it may have come before."""
        if job in self._at and self._at[job][0] is Step.GRANTED:
            self.enter(Step.HELD, job, host)

    def answered(self, job: str) -> None:
        """A verdict came."""
        for step in (Step.REPORTED, Step.COMMITTED):
            self.leave(job, step)

    def leave_all(self, step: Step) -> None:
        for job in [job for job, (at, _) in self._at.items() if at is step]:
            del self._at[job]

    def leave(self, job: str, step: Step | None = None) -> None:
        """`step`: only if it is still there."""
        if step is None or (job in self._at and self._at[job][0] is step):
            self._at.pop(job, None)

    def met(self, victim: str) -> set[Step]:
        """At which steps jobs of that host (or of all) are."""
        return {step for step, host in self._at.values() if victim in (ALL, host)}
