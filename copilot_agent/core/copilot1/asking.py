"""How this agent comes to a job of an original manager.

    state    event                        next     effects
    -------- ---------------------------- -------- -----------------------------------------------
    RESTING  room, `ask_at` reached       ASKING   Say(want_getJob) to all managers of the address
    ASKING   `ask_at` reached             ASKING   Say(want_getJob); pauses of 60, 120 ... 1920 s
    ASKING   have_getJob                  CHOSEN   Say(getJob) to its sender, the first one
    ASKING   have_getJob, file missing    ASKING   (this manager is passed over)
    CHOSEN   runJob of the chosen         RESTING  (the worker takes it)
    CHOSEN   60 s, error, nobody there    ASKING   (asks again as soon as it may)
    ASKING   late runJob of the chosen    RESTING  (the worker takes it all the same)
    RESTING  sleep                        RESTING  (asks a request's gap later; nothing sleeps)

Everything else is ignored: later offers, and `sleep` while asking or holding a job. Requests of an
account lie at least `request_gap` apart, also across agents that follow each other.
"""

from collections.abc import Callable
from enum import Enum, auto

from copilot_agent.core.copilot1.words import DOUBLINGS, Effect, Heard, Note, Say, Timers, bare
from copilot_agent.protocol.copilot1.job_commands import GetJob, HaveJob, WantJob


class State(Enum):
    RESTING = auto()
    ASKING = auto()
    CHOSEN = auto()


class Asking:
    def __init__(
        self, managers: str, timers: Timers, new_id: Callable[[], str], ask_at: float
    ) -> None:
        """`ask_at`: not before then, for the sake of an earlier agent's request."""
        self.state = State.RESTING
        self.free = False
        """There is room for a job."""
        self._managers = managers
        self._timers = timers
        self._new_id = new_id
        self._ask_at = ask_at
        self._may_ask_at = ask_at
        self._before = ask_at
        """What `_may_ask_at` was before the request that may not have been sent."""
        self._pauses = 0
        self._chosen = ""
        self._answer_by = 0.0
        self._said = ""

    @property
    def next_due(self) -> float | None:
        if self.state is State.CHOSEN:
            return self._answer_by
        return self._ask_at if self.free else None

    def room(self, free: bool) -> None:
        if free and not self.free:
            self._pauses = 0
            if self.state is State.RESTING:
                self._ask_at = self._may_ask_at
        self.free = free
        if not free and self.state is State.ASKING:
            self.state = State.RESTING

    def tick(self, now: float) -> list[Effect]:
        """Only while the account is logged in."""
        if self.state is State.CHOSEN and now >= self._answer_by:
            text = f"{self._chosen} did not give the job that it had; asking again"
            return [Note("warning", text), *self.ask_again(), *self.tick(now)]
        if self.state is State.CHOSEN or not self.free or now < self._ask_at:
            return []
        return [self._ask(now)]

    def _ask(self, now: float) -> Effect:
        self.state = State.ASKING
        pause = self._timers.retry * 2**self._pauses
        self._pauses = 0 if self._pauses == DOUBLINGS else self._pauses + 1
        self._before, self._may_ask_at = self._may_ask_at, now + self._timers.request_gap
        self._ask_at = max(self._may_ask_at, now + pause)
        self._said = self._new_id()
        return Say(self._managers, self._said, WantJob())

    def offered(self, heard: Heard, offer: HaveJob, now: float) -> list[Effect]:
        if self.state is not State.ASKING or bare(heard.sender) != self._managers:
            return []
        if not heard.file_there:
            text = f"{heard.sender} has a job that needs {offer.require_file}, which is not here"
            return [Note("info", text)]
        self.state, self._chosen = State.CHOSEN, heard.sender
        self._answer_by = now + self._timers.answer
        self._pauses = 0
        self._said = self._new_id()
        return [Say(heard.sender, self._said, GetJob())]

    def given_by(self, sender: str) -> bool:
        """Whether a runJob of this sender is the awaited one; then nobody is chosen any more."""
        if self.state is State.RESTING or sender != self._chosen:
            return False
        self.state, self._chosen = State.RESTING, ""
        self._ask_at = self._may_ask_at
        return True

    def refused_by(self, sender: str) -> bool:
        """Whether an error of this sender ends the asking of it."""
        if self.state is not State.CHOSEN or sender != self._chosen:
            return False
        self.ask_again()
        return True

    def told_to_sleep(self, now: float) -> None:
        if self.state is State.RESTING:
            self._ask_at = max(self._ask_at, now + self._timers.request_gap)

    def lost(self, message: str, *, sent: bool, now: float) -> None:
        """The server had nobody to give it to, or (not `sent`) never got it."""
        if message != self._said:
            return
        if self.state is State.CHOSEN:
            self.ask_again()
        elif self.state is State.ASKING and not sent:
            self.state, self._pauses = State.RESTING, 0
            self._may_ask_at = self._before
            self._ask_at = max(now, self._before)

    def ask_again(self) -> list[Effect]:
        """As soon as it may; the chosen manager may still come late."""
        self.state = State.ASKING if self.free else State.RESTING
        self._ask_at = self._may_ask_at
        return []
