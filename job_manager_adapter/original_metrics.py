"""What components of Co-Pilot 1 report to us instead of to their monitor, as Prometheus metrics.

Names of components and events come from anybody with an account: they are checked, and only so many
of them get series of their own.
"""

import json
import re
from collections import OrderedDict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.monitor_commands import (
    ReportEvent,
    ReportEventDuration,
    ReportEventValue,
    StoreEventDetails,
    UpdateEventDetails,
)
from job_manager_adapter.services.timings import LONG

MAX_SERIES = 200
"""Pairs of component and event, of each kind of report."""
MAX_SESSIONS = 256
MAX_DETAILS = 4096
"""Characters of what is kept about a session."""
MAX_SECONDS = 1e7
OTHER = "other"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LABELS = ("component", "event")

Report = ReportEvent | ReportEventDuration | ReportEventValue


class _Pairs:
    """Those that have series of their own: the first to come."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def of(self, report: Report) -> tuple[str, str]:
        pair = (report.component or "-", report.event)
        if pair in self._known:
            return pair
        named = report.component == "" or _NAME.fullmatch(report.component)
        if len(self._known) >= MAX_SERIES or not named or not _NAME.fullmatch(report.event):
            return OTHER, OTHER
        self._known.add(pair)
        return pair


class OriginalMetrics:
    """In the manager's registry; nothing of it is there before the first report."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reports = Counter(
            "copilot_original_reports",
            "Reports from components of Co-Pilot 1",
            ["command"],
            registry=registry,
        )
        self._events = Counter(
            "copilot_original_events",
            "Events (reportEvent) of components of Co-Pilot 1",
            _LABELS,
            registry=registry,
        )
        self._seconds = Histogram(
            "copilot_original_event_seconds",
            "Durations (reportEventDuration) of components of Co-Pilot 1",
            _LABELS,
            registry=registry,
            buckets=LONG,
        )
        self._value = Gauge(
            "copilot_original_event_value",
            "Last values (reportEventValue) of components of Co-Pilot 1",
            _LABELS,
            registry=registry,
        )
        self._kept = Gauge(
            "copilot_original_sessions",
            "Sessions of agents of which details are kept",
            registry=registry,
        )
        self._counted, self._timed, self._valued = _Pairs(), _Pairs(), _Pairs()
        self.details = Details()

    def take(self, command: Command) -> bool:
        """Whether it was a report."""
        match command:
            case ReportEvent():
                self._events.labels(*self._counted.of(command)).inc()
            case ReportEventDuration():
                self._observe(command)
            case ReportEventValue():
                self._set(command)
            case StoreEventDetails():
                self.details.store(command.details)
            case UpdateEventDetails():
                self.details.update(command.session, command.updates)
            case _:
                return False
        self._kept.set(len(self.details.sessions))
        self._reports.labels(command.command).inc()
        return True

    def _observe(self, report: ReportEventDuration) -> None:
        if 0 <= report.duration <= MAX_SECONDS:  # a clock that was set back gives others
            self._seconds.labels(*self._timed.of(report)).observe(report.duration)

    def _set(self, report: ReportEventValue) -> None:
        """The last value of many different things would say nothing."""
        pair = self._valued.of(report)
        if pair != (OTHER, OTHER):
            self._value.labels(*pair).set(report.value)


class Details:
    """What was last said about each session, the longest unmentioned forgotten first.

    Updates are orders to a database (MongoDB's `$inc`, `$set`). They are kept as they came, and
    never carried out.
    """

    def __init__(self) -> None:
        self.sessions: OrderedDict[str, dict[str, object]] = OrderedDict()

    def store(self, details: str) -> None:
        said = _object(details)
        session = said.get("session")
        if isinstance(session, str) and session:
            self._keep(session, {"details": said})

    def update(self, session: str, updates: str) -> None:
        if session and (said := _object(updates)):
            self._keep(session, {"update": said})

    def _keep(self, session: str, said: dict[str, object]) -> None:
        key = session[:128]
        self.sessions[key] = {**self.sessions.pop(key, {}), **said}
        if len(self.sessions) > MAX_SESSIONS:
            self.sessions.popitem(last=False)


def _object(text: str) -> dict[str, object]:
    """Empty for what is too long, or no object of JSON."""
    if len(text) > MAX_DETAILS:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
