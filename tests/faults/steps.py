"""The twelve steps of a job's life, and how a job is stopped at each.

Most are seen on the wire (`Trap`). What happens inside the manager is caught by a hook (`points`,
see `hooks`) that the built packages do not contain; what happens in the payload by a file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from tests.faults.hooks import FINISH, TOLD, Point
from tests.faults.proxy import Trap
from tests.faults.wire import Seen

INPUT = "input"
RESULT = "result"


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


@dataclass(frozen=True)
class Stop:
    """How the world is stopped at a step."""

    trap: Trap | None = None
    point: Point | None = None
    running: bool = False
    """The payload waits for a file."""


def stop_at(step: Step, job: Callable[[], str]) -> Stop:
    """`job` gives the subject's id, once it is known."""
    if step is Step.RUNNING:
        return Stop(running=True)
    if step is Step.REPORTED:
        return Stop(point=FINISH)
    if step is Step.TOLD:
        return Stop(point=TOLD)
    if step is Step.CREDITED:
        return Stop(trap=Trap(ReceiptKept(job)))
    if step is Step.ACKNOWLEDGED:
        return Stop(trap=Trap(_fetches(), _holds(job)))
    return Stop(trap=Trap(_TRAPS[step](job)))


Looks = Callable[[Seen], bool]


def _asks(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        return isinstance(seen.frame, PilotFrame) and seen.frame.wants.cores > 0

    return look


def _offers(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        frame = seen.frame
        return isinstance(frame, ManagerFrame) and any(one.job == job() for one in frame.offers)

    return look


def _holds(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        frame = seen.frame
        return isinstance(frame, PilotFrame) and any(one.job == job() for one in frame.holding)

    return look


def _fetches() -> Looks:
    """The subject alone has an input."""

    def look(seen: Seen) -> bool:
        return seen.request.method == "GET" and "/files/" in seen.request.path and not seen.moved

    return look


def _half_fetched(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        return seen.request.method == "GET" and _half(seen)

    return look


def _half_stored(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        path = seen.request.path.partition("?")[0]
        mine = job() in path and path.endswith(f"/{RESULT}")
        return seen.request.method == "PUT" and mine and _half(seen)

    return look


def _half(seen: Seen) -> bool:
    return seen.total > 0 and seen.moved * 2 >= seen.total


def _stores(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        return seen.request.method in ("HEAD", "PUT") and job() in seen.request.path

    return look


def _reports(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        frame = seen.frame
        return isinstance(frame, PilotFrame) and any(one.job == job() for one in frame.reports)

    return look


def _judges(job: Callable[[], str]) -> Looks:
    def look(seen: Seen) -> bool:
        frame = seen.frame
        return isinstance(frame, ManagerFrame) and any(one.job == job() for one in frame.verdicts)

    return look


class ReceiptKept:
    """The pilot says that it has kept the subject's receipt."""

    def __init__(self, job: Callable[[], str]) -> None:
        self._job = job
        self._receipts: set[str] = set()

    def __call__(self, seen: Seen) -> bool:
        if isinstance(seen.frame, ManagerFrame):
            mine = (one.statement for one in seen.frame.receipts)
            self._receipts |= {one.id for one in mine if one.job == self._job()}
        kept = seen.frame.receipts_kept if isinstance(seen.frame, PilotFrame) else ()
        return not self._receipts.isdisjoint(kept)


_TRAPS: dict[Step, Callable[[Callable[[], str]], Looks]] = {
    Step.ASKED: _asks,
    Step.GRANTED: _offers,
    Step.STAGE_IN: _half_fetched,
    Step.EXITED: _stores,
    Step.UPLOADING: _half_stored,
    Step.UPLOADED: _reports,
    Step.COMMITTED: _judges,
}
