"""Where a job's outputs go, and that it is done.

One job at a time asks for a place, because the first answer does not say for which job it is:

    state    event                          next     effects
    -------- ------------------------------ -------- ---------------------------------------------
    IDLE     a job waits for a place        WANTED   Say(want_getJobOutputDir) to all managers
    WANTED   pause of 60 ... 1920 s over    WANTED   Say(want_getJobOutputDir)
    WANTED   have_getJobOutputDir           GETTING  Say(getJobOutputDir) to its sender
    GETTING  10 s, nobody there             WANTED   Say(want_getJobOutputDir)
    GETTING  storeJobOutputDir of the asked IDLE     Keep, Place
    GETTING  error of the asked             IDLE     NoPlace; jobDone will go there all the same

jobDone goes to who named the place, with the same id again until it is acknowledged.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from copilot_agent.core.copilot1.words import (
    DOUBLINGS,
    Assignment,
    Effect,
    Ended,
    Keep,
    NoPlace,
    Note,
    Place,
    PlaceWanted,
    Say,
    Timers,
    Told,
    bare,
)
from copilot_agent.protocol.copilot1.job_commands import (
    GetOutputDir,
    JobDone,
    StoreOutputDir,
    WantOutputDir,
)
from copilot_agent.protocol.copilot1.job_data import job_data_text, parse_job_data

MOST_DATA = 32_000
"""Characters that leave room for the CPU time."""


class State(Enum):
    IDLE = auto()
    WANTED = auto()
    GETTING = auto()


@dataclass
class Repetition:
    """Of a jobDone that was not acknowledged."""

    to: str
    at: float
    pause: float
    until: float


class Delivery:
    def __init__(
        self,
        managers: str,
        timers: Timers,
        new_id: Callable[[], str],
        earlier: Iterable[Assignment],
        now: float,
    ) -> None:
        """`earlier`: what an earlier agent has left."""
        self.assignments = {each.key: each for each in earlier}
        self._managers = managers
        self._timers = timers
        self._new_id = new_id
        self._state = State.IDLE
        self._waiting: list[str] = []
        """Keys of jobs without a place; the first one is being asked for."""
        self._asked = ""
        self._due = 0.0
        self._pauses = 0
        self._said = ""
        self._repeated: dict[str, Repetition] = {}
        for each in self.assignments.values():
            if each.exit_status is not None and not each.told:
                self._over(each, now)

    @property
    def next_due(self) -> float | None:
        dues = [min(each.at, each.until) for each in self._repeated.values()]
        if self._state is not State.IDLE or self._waiting:
            dues.append(self._due)
        return min(dues, default=None)

    # ----- a place

    def want_place(self, event: PlaceWanted) -> list[Effect]:
        assignment = self.assignments.get(event.key)
        if assignment is None or assignment.exit_status is not None:
            return []
        if event.validate_exit_status is not None:
            update = {"validate_exit_status": event.validate_exit_status}
            assignment = self._changed(assignment, update)
        self._wait(event.key)
        return [Keep(assignment)]

    def have_place(self, sender: str, now: float) -> list[Effect]:
        if self._state is not State.WANTED or bare(sender) != self._managers:
            return []
        assignment = self.assignments[self._waiting[0]]
        self._state, self._asked = State.GETTING, sender
        self._due = now + self._timers.storage_answer
        self._said = self._new_id()
        asking = GetOutputDir(job_id=assignment.job, job_data=assignment.job_data)
        return [Say(sender, self._said, asking)]

    def place(self, sender: str, command: StoreOutputDir) -> list[Effect]:
        if self._state is State.IDLE or sender != self._asked:
            return []
        assignment = self.assignments[self._waiting[0]]
        if command.job_id != assignment.job:
            return []
        update: dict[str, object] = {"storage": sender}
        if command.job_data:
            update["job_data"] = command.job_data
        assignment = self._changed(assignment, update)
        self._next()
        return [Keep(assignment), Place(assignment, command.output_chirp_url)]

    def refused_by(self, sender: str, reason: str, now: float) -> list[Effect]:
        """What an error of this sender means; nothing if it was not asked."""
        if self._state is not State.GETTING or sender != self._asked:
            return []
        assignment = self._changed(self.assignments[self._waiting[0]], {"storage": sender})
        self._next()
        if assignment.exit_status is not None:
            self._repeat(assignment, now)
        return [Keep(assignment), NoPlace(assignment.key, reason)]

    def _wait(self, key: str) -> None:
        if key not in self._waiting:
            self._waiting.append(key)
        if self._state is State.IDLE:
            self._due, self._pauses = 0.0, 0

    def _next(self) -> None:
        self._waiting.pop(0)
        self._state, self._asked = State.IDLE, ""
        self._due, self._pauses = 0.0, 0

    # ----- jobDone

    def end(self, event: Ended, now: float) -> list[Effect]:
        assignment = self.assignments.get(event.key)
        if assignment is None or assignment.exit_status is not None:
            return []
        update = {
            "exit_status": event.exit_status,
            "job_data": _with_time(assignment.job_data, event.cpu_seconds),
            "done_id": self._new_id(),
        }
        assignment = self._changed(assignment, update)
        self._over(assignment, now)
        return [Keep(assignment)]

    def _over(self, assignment: Assignment, now: float) -> None:
        """Without a place there is none to tell, either."""
        if not assignment.storage:
            self._wait(assignment.key)
            return
        if assignment.key in self._waiting[1:]:
            self._waiting.remove(assignment.key)
        elif assignment.key in self._waiting:
            self._next()
        self._repeat(assignment, now)

    def explained(self, key: str, now: float) -> None:
        if (assignment := self.assignments.get(key)) and assignment.exit_status is not None:
            self._repeat(assignment, now)

    def _repeat(self, assignment: Assignment, now: float) -> None:
        to, timers = assignment.storage, self._timers
        self._repeated[assignment.key] = Repetition(to, now, timers.resend, now + timers.give_up)

    def acked(self, sender: str, message: str) -> list[Effect]:
        for key in list(self._repeated):
            assignment = self.assignments[key]
            if message == assignment.done_id and bare(sender) == bare(assignment.storage):
                return self._told(assignment, "")
        return []

    def _told(self, assignment: Assignment, given_up: str) -> list[Effect]:
        del self._repeated[assignment.key]
        told = self._changed(assignment, {"told": True})
        return [Keep(told), Told(told.key, given_up)]

    def forget(self, key: str) -> bool:
        """Whether there was something to forget."""
        assignment = self.assignments.get(key)
        if assignment is None or not assignment.told:
            return False
        del self.assignments[key]
        return True

    # ----- time and troubles

    def lost(self, message: str, *, sent: bool, now: float) -> None:
        """The server had nobody to give it to, or (not `sent`) never got it."""
        if message == self._said and self._state is State.GETTING:
            self._state, self._due = State.WANTED, now
        elif message == self._said and self._state is State.WANTED and not sent:
            self._due, self._pauses = now, 0
        for key, repetition in self._repeated.items():
            if message == self.assignments[key].done_id:
                if sent:  # another instance of the same manager may be there
                    repetition.to = bare(repetition.to)
                else:
                    repetition.at = now

    def tick(self, now: float) -> list[Effect]:
        """Only while the account is logged in."""
        effects: list[Effect] = []
        if self._waiting and now >= self._due:
            effects.append(self._want(now))
        for key, repetition in list(self._repeated.items()):
            if now >= repetition.until:
                words = "jobDone was never acknowledged; it is not sent any more"
                effects += [Note("error", f"{self.assignments[key].job}: {words}")]
                effects += self._told(self.assignments[key], words)
            elif now >= repetition.at:
                effects.append(self._say_done(self.assignments[key], repetition, now))
        return effects

    def _want(self, now: float) -> Effect:
        assignment = self.assignments[self._waiting[0]]
        self._state = State.WANTED
        self._due = now + self._timers.retry * 2**self._pauses
        self._pauses = 0 if self._pauses == DOUBLINGS else self._pauses + 1
        self._said = self._new_id()
        wish = WantOutputDir(job_id=assignment.job, job_data=assignment.job_data)
        return Say(self._managers, self._said, wish)

    def _say_done(self, assignment: Assignment, repetition: Repetition, now: float) -> Effect:
        repetition.at = now + repetition.pause
        repetition.pause = min(2 * repetition.pause, self._timers.resend * 2**DOUBLINGS)
        if assignment.exit_status is None:
            raise AssertionError(f"{assignment.job}: is not over")
        done = JobDone(
            job_id=assignment.job,
            job_data=assignment.job_data,
            exit_status=assignment.exit_status,
            validate_exit_status=assignment.validate_exit_status,
        )
        return Say(repetition.to, assignment.done_id, done)

    def _changed(self, assignment: Assignment, update: Mapping[str, object]) -> Assignment:
        changed = assignment.model_copy(update=update)
        self.assignments[changed.key] = changed
        return changed


def _with_time(job_data: str | None, cpu_seconds: float) -> str | None:
    """Newer managers look for the CPU time there; text in another form stays as it is."""
    if not job_data or len(job_data) > MOST_DATA:
        return job_data
    return job_data_text(parse_job_data(job_data).including("wallTime", f"{cpu_seconds:.2f}"))
