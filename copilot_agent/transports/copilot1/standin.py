"""What the pilot takes for its manager: frames in, frames out, no I/O.

Offers, verdicts and commands are in every frame until the pilot's own frames reflect them.
"""

from collections.abc import Callable

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.copilot1.wait_status import Ending, status_of
from copilot_agent.protocol.frames import (
    Command,
    CommandKind,
    ManagerFrame,
    Offer,
    PilotFrame,
    Report,
    Verdict,
    VerdictKind,
)
from copilot_agent.protocol.job import JobSpec, Outcome

FAILED = 125 << 8
"""The wait status of a job that failed without one of its own, or in spite of exit code 0."""
LEASE_SECONDS = 86_400.0
"""Nobody looks at it: an original manager has no leases."""


class StandIn:
    def __init__(self, new_id: Callable[[str], str]) -> None:
        """`new_id` makes ids of a kind."""
        self.session = 0
        self.reasons: dict[str, str] = {}
        """Why jobs failed, for people; by our own ids."""
        self._new_id = new_id
        self._sequence = 0
        self._offers: dict[str, Offer] = {}
        """Of jobs that are not over."""
        self._held: frozenset[str] = frozenset()
        self._verdicts: dict[str, Verdict] = {}
        self._commands: dict[str, Command] = {}

    # ----- what goes to the pilot

    def attach(self) -> None:
        self.session += 1

    def offer(self, key: str, spec: JobSpec) -> None:
        self._offers[key] = Offer(job=key, attempt=1, spec=spec, lease_seconds=LEASE_SECONDS)

    def cancel(self, key: str, reason: str) -> None:
        command = Command(
            id=self._new_id("c"), kind=CommandKind.CANCEL, job=key, reason=reason[:500]
        )
        self._commands[command.id] = command

    def close(self, key: str, given_up: str = "") -> None:
        kind = VerdictKind.REJECTED if given_up else VerdictKind.ACCEPTED
        self._verdicts[key] = Verdict(job=key, attempt=1, verdict=kind, reason=given_up)

    def frame(self, now: float) -> ManagerFrame:
        """`now` is Unix time."""
        return ManagerFrame(
            session=self.session,
            acknowledges=self._sequence,
            server_time=now,
            offers=tuple(offer for key, offer in self._offers.items() if key not in self._held),
            verdicts=tuple(self._verdicts.values()),
            commands=tuple(self._commands.values()),
        )

    # ----- what comes from it

    def take(self, frame: PilotFrame) -> list[w.Event]:
        self._sequence = frame.sequence
        self._held = frozenset(held.job for held in frame.holding)
        for done in frame.commands_done:
            self._commands.pop(done, None)
        events = [self._ended(report) for report in frame.reports]
        for key in [key for key in self._verdicts if key not in self._held]:
            del self._verdicts[key]
            self.reasons.pop(key, None)
            events.append(w.Forgotten(key))
        return [*events, w.Room(free=self._free(frame))]

    @property
    def held(self) -> frozenset[str]:
        """What the pilot has, and what it is about to hear of."""
        return self._held | self._offers.keys()

    def _free(self, frame: PilotFrame) -> bool:
        """One job at a time, as original agents have it; reports may wait beside it."""
        stopping = frame.paused or frame.draining or frame.leaving
        return frame.wants.cores > 0 and not self._offers and not stopping

    def _ended(self, report: Report) -> w.Event:
        self._offers.pop(report.job, None)
        self.reasons[report.job] = report.message
        return w.Ended(report.job, exit_status(report), report.usage.cpu_seconds)


def exit_status(report: Report) -> int:
    """The raw wait status; anything but 0 is a failure to an original manager."""
    succeeded = report.outcome is Outcome.SUCCEEDED
    if report.exit_code is not None and succeeded == (report.exit_code == 0):
        return status_of(Ending(report.exit_code))
    if report.signal is not None and not succeeded:
        return status_of(Ending(None, report.signal))
    return FAILED
