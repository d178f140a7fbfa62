"""The twelve steps of a job's life, and how a job is stopped at each.

Most are seen on the wire (`Trap`). What happens inside the manager is caught by a hook (`points`,
see `hooks`) that the built packages do not contain; what happens in the payload by a file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from tests.faults.hooks import FINISH, TOLD, Point
from tests.faults.proxy import Trap
from tests.faults.wire import Seen

INPUT = "input"
RESULT = "result"


class HasJob(Protocol):
    @property
    def job(self) -> str: ...


class Step(StrEnum):
    ASKED = "s1"
    GRANTED = "s2"
    ACKNOWLEDGED = "s3"
    STAGE_IN = "s4"
    RUNNING = "s5"
    EXITED = "s6"
    UPLOADING = "s7"
    UPLOADED = "s8"
    REPORTED = "s9"
    COMMITTED = "s10"
    TOLD = "s11"
    CREDITED = "s12"


MEANING = {
    Step.ASKED: "lease asked: the pilot's first frame with room is on the wire",
    Step.GRANTED: "lease granted, not acknowledged: claimed, the offer is on the wire",
    Step.ACKNOWLEDGED: "acknowledged: the manager has heard that the pilot holds it",
    Step.STAGE_IN: "stage-in: half of the input is there",
    Step.RUNNING: "running: the payload has begun, the manager knows it",
    Step.EXITED: "exit seen: the payload has ended, no output is asked for",
    Step.UPLOADING: "half of the result is uploaded",
    Step.UPLOADED: "uploads done, the report is on the pilot's disk and on the wire",
    Step.REPORTED: "the manager has the report and has not begun to commit it",
    Step.COMMITTED: "committed, the verdict is on the wire",
    Step.TOLD: "the experiment's scheduler has been told, its answer has not come",
    Step.CREDITED: "the receipt is on the volunteer's disk, the manager does not know",
}


class Subject:
    """The job at whose step the fault strikes; its id is learned from its offer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.job = ""

    def offered(self, seen: Seen) -> bool:
        for offer in seen.frame.offers if isinstance(seen.frame, ManagerFrame) else ():
            if offer.spec.name == self.name:
                self.job = offer.job
                return True
        return False

    def among(self, things: Iterable[HasJob]) -> bool:
        return any(one.job == self.job for one in things)


@dataclass(frozen=True)
class Stop:
    """How the world is stopped at a step."""

    trap: Trap | None = None
    points: tuple[Point, ...] = ()
    """Any of them."""
    running: bool = False
    """The payload waits for a file."""


Looks = Callable[[Seen], bool]


def stop_at(step: Step, subject: Subject) -> Stop:
    if step is Step.RUNNING:
        return Stop(running=True)
    if step in _POINTS:
        return Stop(points=_POINTS[step])
    look = _LOOKS[step](subject)
    needed = _held(subject) if step is Step.ACKNOWLEDGED else None

    def learning(seen: Seen) -> bool:
        subject.offered(seen)
        return look(seen)

    return Stop(trap=Trap(learning, needed))


def _asked(subject: Subject) -> Looks:
    return lambda seen: isinstance(seen.frame, PilotFrame) and seen.frame.wants.cores > 0


def _offered(subject: Subject) -> Looks:
    return subject.offered


def _held(subject: Subject) -> Looks:
    return lambda seen: isinstance(seen.frame, PilotFrame) and subject.among(seen.frame.holding)


def _fetched(subject: Subject) -> Looks:
    """The subject alone has an input."""
    return lambda seen: _is_file(seen, "GET") and not seen.moved


def _half_fetched(subject: Subject) -> Looks:
    return lambda seen: _is_file(seen, "GET") and _half(seen)


def _half_stored(subject: Subject) -> Looks:
    def look(seen: Seen) -> bool:
        path = seen.request.path.partition("?")[0]
        mine = bool(subject.job) and subject.job in path and path.endswith(f"/{RESULT}")
        return mine and seen.request.method == "PUT" and _half(seen)

    return look


def _first_stored(subject: Subject) -> Looks:
    def look(seen: Seen) -> bool:
        mine = bool(subject.job) and subject.job in seen.request.path
        return mine and seen.request.method in ("HEAD", "PUT")

    return look


def _is_file(seen: Seen, method: str) -> bool:
    return seen.request.method == method and "/files/" in seen.request.path


def _half(seen: Seen) -> bool:
    return seen.total > 0 and seen.moved * 2 >= seen.total


def _reported(subject: Subject) -> Looks:
    return lambda seen: isinstance(seen.frame, PilotFrame) and subject.among(seen.frame.reports)


def _judged(subject: Subject) -> Looks:
    return lambda seen: isinstance(seen.frame, ManagerFrame) and subject.among(seen.frame.verdicts)


def _credited(subject: Subject) -> Looks:
    """The pilot says that it has kept the subject's receipt."""
    receipts: set[str] = set()

    def look(seen: Seen) -> bool:
        if isinstance(seen.frame, ManagerFrame):
            mine = (one.statement for one in seen.frame.receipts)
            receipts.update(one.id for one in mine if one.job == subject.job)
        kept = seen.frame.receipts_kept if isinstance(seen.frame, PilotFrame) else ()
        return not receipts.isdisjoint(kept)

    return look


_POINTS = {Step.REPORTED: FINISH, Step.TOLD: TOLD}
_LOOKS: dict[Step, Callable[[Subject], Looks]] = {
    Step.ASKED: _asked,
    Step.GRANTED: _offered,
    Step.ACKNOWLEDGED: _fetched,
    Step.STAGE_IN: _half_fetched,
    Step.EXITED: _first_stored,
    Step.UPLOADING: _half_stored,
    Step.UPLOADED: _reported,
    Step.COMMITTED: _judged,
    Step.CREDITED: _credited,
}
