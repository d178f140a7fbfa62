"""What the monitor of the original is told, in the original's names. No I/O happens here.

A path in its database is copilot.COMPONENT.EVENT, so names have no other dots than its own.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.monitor_commands import (
    ReportEvent,
    ReportEventDuration,
    ReportEventValue,
    StoreEventDetails,
    UpdateEventDetails,
)
from copilot_agent.protocol.job import FailureClass, JobState
from copilot_agent.xmpp.computer import Disk, Load, Memory, Traffic
from job_manager_adapter.views import Event

MAX_RUNNING = 100_000
"""Jobs whose start is remembered; the oldest is forgotten first."""
MIB = 1 << 20
_STRANGE = re.compile(r"[^A-Za-z0-9_-]")
_NO_ERROR_OF_THE_JOB = frozenset({FailureClass.LEASE_LOST})


def path_word(text: str) -> str:
    """One step of a path, such as the name of a disk."""
    return _STRANGE.sub("_", text)[:64] or "unnamed"


def component_of(resource: str) -> str:
    """As the generic manager of the original calls itself."""
    return f"jobmanager.generic.{path_word(resource)}"


@dataclass(frozen=True)
class Computer:
    """A look at it."""

    load: Load
    disks: Sequence[Disk]
    memory: Sequence[Memory]
    traffic: Sequence[Traffic]


@dataclass(frozen=True)
class _Start:
    at: float
    pilot: str


class MonitorReports:
    """With `details`, also about each pilot by itself, as documents of a database."""

    def __init__(self, component: str, *, details: bool = False) -> None:
        self._component = component
        self._details = details
        self._running: OrderedDict[str, _Start] = OrderedDict()
        self._traffic: Mapping[str, Traffic] = {}

    def happened(self, event: str) -> Command:
        """Such as error.emptyQueue, which is no event of ours."""
        return ReportEvent(component=self._component, event=event)

    def of(self, event: Event) -> list[Command]:
        """What one event of our journal means to it."""
        match event.kind:
            case "job":
                return self._of_job(event)
            case "pilot" if self._details:
                return self._of_pilot(event)
            case _:
                return []

    def _of_job(self, event: Event) -> list[Command]:
        if event.state == JobState.LEASED:
            self._began(event)
            return [self.happened("job.start")]
        if event.state == JobState.RUNNING:
            return []
        start = self._running.pop(event.subject, None)
        ending = _ending(event)
        if not ending:
            return []
        # a start that nobody saw counts as no duration, as in the original
        seconds = int(max(0.0, event.at.timestamp() - start.at)) if start else 0
        name = f"job.{ending}"
        told: list[Command] = [
            ReportEventDuration(component=self._component, event=name, duration=seconds)
        ]
        if self._details and start:
            told.append(_update(start.pilot, "$inc", {f"jobs.{ending}": 1, "wallTime": seconds}))
        return told

    def _began(self, event: Event) -> None:
        self._running.pop(event.subject, None)
        self._running[event.subject] = _Start(event.at.timestamp(), event.detail)
        if len(self._running) > MAX_RUNNING:
            self._running.popitem(last=False)

    def _of_pilot(self, event: Event) -> list[Command]:
        at = int(event.at.timestamp())
        if event.state == "attached":
            document = {"session": event.subject, "component": self._component, "connected": at}
            return [StoreEventDetails(details=_json(document))]
        if event.state in ("lost", "retired"):
            return [_update(event.subject, "$set", {"disconnected": at})]
        return []

    def periodic(self, queued: int, computer: Computer | None) -> list[Command]:
        """What the original says each minute."""
        values = {"queuedJobs": float(queued)}
        if computer is not None:
            values |= dict(_computer_values(computer)) | self._traffic_values(computer.traffic)
        return [
            ReportEventValue(component=self._component, event=name, value=value)
            for name, value in values.items()
        ]

    def _traffic_values(self, traffic: Sequence[Traffic]) -> dict[str, float]:
        """MiB since the last time; what goes out is negative, so that graphs show it below."""
        values = {}
        for now in traffic:
            before = self._traffic.get(now.interface, now)
            name = path_word(now.interface)
            values[f"system.net.in.{name}"] = _mib(now.received - before.received)
            values[f"system.net.out.{name}"] = -_mib(now.sent - before.sent)
        self._traffic = {one.interface: one for one in traffic}
        return values


def _ending(event: Event) -> str:
    """succeeded, failed, or nothing: the monitor knows no lost or returned jobs."""
    if event.state in (JobState.SUCCEEDED, JobState.FAILED):
        return event.state
    if event.state != JobState.WAITING or event.detail not in list(FailureClass):
        return ""
    why = FailureClass(event.detail)
    return "failed" if why.costs_attempt and why not in _NO_ERROR_OF_THE_JOB else ""


def _computer_values(computer: Computer) -> Iterable[tuple[str, float]]:
    for minutes, value in zip((1, 5, 15), computer.load.minutes, strict=True):
        yield f"system.load.{minutes}min", value
    for disk in computer.disks:
        name = path_word(disk.device.rpartition("/")[2])
        yield f"system.disk.used.{name}", disk.used
        yield f"system.disk.available.{name}", disk.available
    for memory in computer.memory:
        yield f"system.ram.used.{memory.name}", memory.used
        yield f"system.ram.available.{memory.name}", memory.available


def _mib(count: int) -> float:
    return round(max(0, count) / MIB, 3)


def _update(session: str, operator: str, fields: Mapping[str, int]) -> Command:
    return UpdateEventDetails(session=session, updates=_json({operator: fields}))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
