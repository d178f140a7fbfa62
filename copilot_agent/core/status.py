"""What the launcher, and through it the volunteer, hears."""

from typing import Literal

from copilot_agent.core import effects as do
from copilot_agent.core.attempts import UNFINISHED, Attempt
from copilot_agent.core.effects import Effect
from copilot_agent.core.link import Link
from copilot_agent.core.work import Work
from copilot_agent.protocol.guest import GuestProgress, JobProgress, State

PROGRESS_SECONDS = 5.0
MAX_JOBS = 64

Word = Literal["connecting", "idle", "working", "draining", "drained", "retired", "failed"]


class Status:
    def __init__(self, launcher: bool) -> None:
        self.pilot: str | None = None
        self.refusal = ""
        """Why the manager does not want this pilot; empty if it does."""
        self._launcher = launcher
        self._said: tuple[Word, str | None, int, int, str] | None = None
        self._next_measure = 0.0

    # ----- progress

    @property
    def next_due(self) -> float | None:
        return self._next_measure if self._launcher else None

    def measure_due(self, now: float) -> bool:
        return self._launcher and now >= self._next_measure

    def measuring(self, now: float) -> None:
        self._next_measure = now + PROGRESS_SECONDS

    def progress(self, work: Work) -> list[Effect]:
        if not self._launcher:
            return []
        live = [attempt for attempt in work.running if attempt.offer]
        cpu = work.cpu_seconds + sum(a.sample.usage.cpu_seconds for a in live if a.sample)
        message = GuestProgress(
            jobs=tuple(_job(attempt) for attempt in live[:MAX_JOBS]),
            jobs_succeeded=work.succeeded,
            jobs_failed=work.failed,
            cpu_seconds=cpu,
        )
        return [do.TellLauncher(message)]

    # ----- state

    def say_again(self) -> None:
        """The launcher may have been away, or be another one."""
        self._said = None

    def tell(self, work: Work, link: Link, mood: str) -> list[Effect]:
        """Only what is new; with the counts when they changed."""
        word, running, held = _word(work, link, mood), len(work.running), len(work.attempts)
        news = (word, self.pilot, running, held, link.trouble)
        if news == self._said:
            return []
        state = State(
            state=word,
            pilot=self.pilot,
            jobs_running=running,
            jobs_held=held,
            message=_line(link.trouble),
        )
        effects: list[Effect] = [do.TellLauncher(state)]
        if self._said is not None and self._said[3] != held:
            effects += self.progress(work)
        self._said = news
        return effects

    def farewell(self, work: Work) -> list[Effect]:
        word: Word = "failed" if self.refusal else "retired"
        state = State(
            state=word, pilot=self.pilot, jobs_held=len(work.attempts), message=_line(self.refusal)
        )
        return [*self.progress(work), do.TellLauncher(state)]


def _word(work: Work, link: Link, mood: str) -> Word:
    if mood == "draining":
        return "draining" if work.attempts else "drained"
    if mood == "leaving":
        return "draining"
    if any(a.stage in UNFINISHED for a in work.attempts.values()):
        return "working"
    return "idle" if link.attached else "connecting"


def _job(attempt: Attempt) -> JobProgress:
    spec = attempt.offer.spec if attempt.offer else None
    return JobProgress(
        name=spec.name if spec else "",
        experiment=spec.experiment if spec else "",
        fraction=attempt.sample.fraction if attempt.sample else None,
        cpu_seconds=attempt.sample.usage.cpu_seconds if attempt.sample else 0.0,
    )


def _line(text: str) -> str:
    """Printable ASCII and not too long, as `Line` wants it."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:300]
