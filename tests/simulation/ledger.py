"""What can be seen from outside, in order; the checker reads this and nothing else.

Users see what the API answers, launchers see receipts, hosts see payloads start and end, the
network sees which frames came through, and whoever made the faults knows when and where.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from copilot_agent.protocol.frames import PilotFrame, Report, VerdictKind
from copilot_agent.protocol.job import JobState, Outcome
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.views import JobView
from tests.simulation.loop import Universe

Attempt = tuple[str, int]


@dataclass(frozen=True)
class OfferSeen:
    at: float
    host: str
    job: str
    attempt: int


@dataclass
class Payload:
    host: str
    job: str
    attempt: int
    began: float
    ended: float | None = None


@dataclass(frozen=True)
class VerdictSeen:
    at: float
    host: str
    job: str
    attempt: int
    verdict: VerdictKind


@dataclass(frozen=True)
class Word:
    """A frame that reached the manager and named the attempt as held."""

    at: float
    host: str
    paused: bool


@dataclass(frozen=True)
class Trouble:
    """A fault and what it left behind, on one host or (`host` empty) on the manager's side."""

    kind: str
    host: str
    began: float
    ended: float


@dataclass(frozen=True)
class UpstreamEnd:
    upstream: str
    outcome: Outcome


@dataclass
class Ledger:
    universe: Universe
    submitted: dict[str, float] = field(default_factory=dict)
    """Job → when its submission was acknowledged."""
    asked: dict[str, float] = field(default_factory=dict)
    """Job → when its submission was first asked for."""
    cancelled: dict[str, float] = field(default_factory=dict)
    """Job → when its cancel was acknowledged; gone again if it was retried."""
    cancels: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Job → when each of its cancels was acknowledged."""
    hosts: list[str] = field(default_factory=list)
    upstream_jobs: dict[str, str] = field(default_factory=dict)
    """The scheduler's name of a job → ours, as the API shows it."""
    retried: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pause_seconds: dict[str, float] = field(default_factory=dict)
    """By job."""
    offers: list[OfferSeen] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    verdicts: list[VerdictSeen] = field(default_factory=list)
    words: dict[Attempt, list[Word]] = field(default_factory=lambda: defaultdict(list))
    pauses: dict[str, list[Word]] = field(default_factory=lambda: defaultdict(list))
    """By host: the frames that began or ended a pause."""
    reports: dict[Attempt, list[tuple[float, str, Report]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Reports that reached the manager: when, from which host."""
    spoke: dict[str, float] = field(default_factory=dict)
    """Host → when the manager last heard of it."""
    newest: dict[tuple[str, int | None], int] = field(default_factory=dict)
    """By host and session: the highest number of its frames."""
    uploads: dict[Attempt, set[str]] = field(default_factory=lambda: defaultdict(set))
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)
    """At launchers, as they keep them."""
    enrolled: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By host: each enrolment supersedes the pilot before."""
    upstream: list[UpstreamEnd] = field(default_factory=list)
    upstream_claimed: dict[str, float] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    serving: list[float] = field(default_factory=list)
    """When a manager began to serve."""
    final: dict[str, JobView] = field(default_factory=dict)
    """What the API shows in the end."""
    finals_seen: list[tuple[float, str, JobState]] = field(default_factory=list)
    """Final states that the API showed on the way."""
    leases_left: int = 0
    quiet: bool = True
    """It all came to rest in time."""
    credit: float = 0.0
    """The manager's own sum."""

    # ----- pilots and hosts

    def frame_seen(self, host: str, frame: dict[str, Any]) -> None:
        """A manager's frame, as JSON has it."""
        now = self.universe.now
        for offer in frame.get("offers", ()):
            self.universe.note(host, f"offered {offer['job']}/{offer['attempt']}")
            self.offers.append(OfferSeen(now, host, offer["job"], offer["attempt"]))
        for each in frame.get("verdicts", ()):
            kind = VerdictKind(each["verdict"])
            self.universe.note(host, f"verdict {each['job']}/{each['attempt']} {kind}")
            self.verdicts.append(VerdictSeen(now, host, each["job"], each["attempt"], kind))

    def frame_heard(self, host: str, frame: PilotFrame) -> None:
        """What a frame that was overtaken says of the present is past, but for its reports."""
        word = Word(self.universe.now, host, frame.paused)
        self.spoke[host] = word.at
        newest = self.newest.get((host, frame.session), -1)
        self.newest[host, frame.session] = max(newest, frame.sequence)
        if frame.session is None or frame.sequence >= newest:
            for held in frame.holding:
                self.words[held.job, held.attempt].append(word)
            pauses = self.pauses[host]
            if word.paused != (bool(pauses) and pauses[-1].paused):
                pauses.append(word)
        for report in frame.reports:
            self.reports[report.job, report.attempt].append((word.at, host, report))

    def payload_started(self, host: str, job: str, attempt: int) -> None:
        self.universe.note(host, f"payload {job}/{attempt} starts")
        self.payloads.append(Payload(host, job, attempt, self.universe.now))

    def payload_ended(self, host: str, job: str, attempt: int) -> None:
        self.universe.note(host, f"payload {job}/{attempt} ends")
        for payload in self.payloads:
            same = (payload.host, payload.job, payload.attempt) == (host, job, attempt)
            if same and payload.ended is None:
                payload.ended = self.universe.now

    def reclaimed(self, host: str) -> list[Attempt]:
        """Everything that ran on that host is killed."""
        found = [one for one in self.payloads if one.host == host and one.ended is None]
        for payload in found:
            payload.ended = self.universe.now
        return [(one.job, one.attempt) for one in found]

    def trouble(self, kind: str, host: str, seconds: float) -> None:
        now = self.universe.now
        self.troubles.append(Trouble(kind, host, now, now + seconds))

    def trouble_over(self, kind: str, host: str) -> None:
        """It took longer than was thought."""
        now = self.universe.now
        for number, each in reversed(list(enumerate(self.troubles))):
            if (each.kind, each.host) == (kind, host):
                self.troubles[number] = Trouble(kind, host, each.began, max(each.ended, now))
                return
