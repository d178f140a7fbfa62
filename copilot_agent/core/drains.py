"""Who asked this pilot to drain. One's undo leaves the other's drain as it is."""

from copilot_agent.core.attempts import Ending
from copilot_agent.core.work import given_back
from copilot_agent.protocol.job import FailureClass

VOLUNTEER, OPERATOR = FailureClass.VOLUNTEER_LEFT, FailureClass.PREEMPTED
_WHO = {VOLUNTEER: "volunteer", OPERATOR: "operator"}


class Drains:
    def __init__(self) -> None:
        self._deadlines: dict[FailureClass, float | None] = {}
        """By who asked; None once what was left has been ended, or where there is none."""

    def __bool__(self) -> bool:
        return bool(self._deadlines)

    def ask(self, who: FailureClass, deadline: float | None) -> Ending:
        """Returns how what has not begun ends now."""
        self._deadlines[who] = deadline
        return given_back(who, f"not begun when the {_WHO[who]} asked the pilot to drain")

    def undo(self, who: FailureClass) -> None:
        self._deadlines.pop(who, None)

    @property
    def next_due(self) -> float | None:
        dues = (due for due in self._deadlines.values() if due is not None)
        return min(dues, default=None)

    def due(self, now: float) -> list[Ending]:
        """How what is left ends now; said once for each deadline."""
        endings = []
        for who, deadline in self._deadlines.items():
            if deadline is not None and now >= deadline:
                self._deadlines[who] = None
                endings.append(given_back(who, f"the {_WHO[who]}'s deadline for the drain"))
        return endings
