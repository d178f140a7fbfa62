"""What happens here, in the names and units of the original's monitor."""

import json
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from copilot_agent.protocol.copilot1.commands import info_of
from copilot_agent.protocol.copilot1.monitor_commands import (
    ReportEvent,
    ReportEventDuration,
    ReportEventValue,
)
from copilot_agent.protocol.copilot1.tree import Tree
from copilot_agent.xmpp.computer import Disk, Load, Memory, Traffic
from job_manager_adapter.transports.copilot1.monitor_reports import (
    MAX_RUNNING,
    Computer,
    MonitorReports,
    component_of,
)
from job_manager_adapter.views import Event
from tests.unit.copilot_agent.protocol.copilot1.recordings import recorded_commands

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PILOT = "p-00000000000000000000000001"


def event(
    state: str,
    at: float = 0.0,
    detail: str = "",
    *,
    subject: str = "j-1",
    kind: Literal["job", "pilot", "host", "fleet"] = "job",
) -> Event:
    moment = BEGIN + timedelta(seconds=at)
    return Event(id=1, at=moment, kind=kind, subject=subject, state=state, detail=detail)


def told(reports: MonitorReports, *events: Event) -> list[Tree]:
    return [info_of(command) for one in events for command in reports.of(one)]


def monitor(*, details: bool = False) -> MonitorReports:
    return MonitorReports(component_of("alpha"), details=details)


def test_a_job_is_told_as_it_was_recorded() -> None:
    recorded = {
        type(command): info_of(command)
        for _, command in recorded_commands()
        if isinstance(command, ReportEvent | ReportEventDuration)
    }
    reports = monitor()
    assert told(
        reports,
        event("waiting"),
        event("leased", 1, PILOT),
        event("running", 1.2, PILOT),
        event("succeeded", 1.9),
    ) == [recorded[ReportEvent], recorded[ReportEventDuration]]


def test_durations_are_whole_seconds_from_the_offer_on() -> None:
    reports = monitor()
    told(reports, event("leased", 10), event("leased", 100, subject="j-2"))
    (info,) = told(reports, event("failed", 131.7))
    assert (info["event"], info["duration"]) == ("job.failed", "121")


@pytest.mark.parametrize(
    ("state", "detail", "name"),
    [
        ("failed", "payload", "job.failed"),
        ("failed", "lease_lost", "job.failed"),
        ("waiting", "payload", "job.failed"),
        ("waiting", "stage_out", "job.failed"),
        ("waiting", "lease_lost", None),
        ("waiting", "preempted", None),
        ("waiting", "retried", None),
        ("waiting", "", None),
        ("cancelled", "", None),
    ],
)
def test_only_errors_of_the_job_are_failures(state: str, detail: str, name: str | None) -> None:
    reports = monitor()
    told(reports, event("leased"))
    assert [info["event"] for info in told(reports, event(state, 5, detail))] == [name] * bool(name)


def test_an_end_whose_beginning_was_not_seen_took_no_time() -> None:
    (info,) = told(monitor(), event("succeeded", 5))
    assert info["duration"] == "0"


def test_starts_do_not_pile_up() -> None:
    reports = monitor()
    for number in range(MAX_RUNNING + 1):
        reports.of(event("leased", 0, subject=f"j-{number}"))
    first, second = told(
        reports, event("succeeded", 9, subject="j-0"), event("succeeded", 9, subject="j-1")
    )
    assert (first["duration"], second["duration"]) == ("0", "9")


def test_pilots_are_told_of_only_where_it_is_wanted() -> None:
    events = [
        event("attached", 1, kind="pilot", subject=PILOT),
        event("leased", 2, PILOT),
        event("succeeded", 12),
        event("lost", 20, kind="pilot", subject=PILOT),
    ]
    assert [info["command"] for info in told(monitor(), *events)] == [
        *("reportEvent", "reportEventDuration")
    ]
    infos = told(monitor(details=True), *events)
    documents = [
        (
            info["command"],
            info.get("session"),
            json.loads(str(info.get("details", info.get("updates")))),
        )
        for info in infos
        if str(info["command"]).endswith("Details")
    ]
    at = int(BEGIN.timestamp())
    component = "jobmanager.generic.alpha"
    assert documents == [
        (
            "storeEventDetails",
            None,
            {"session": PILOT, "component": component, "connected": at + 1},
        ),
        ("updateEventDetails", PILOT, {"$inc": {"jobs.succeeded": 1, "wallTime": 10}}),
        ("updateEventDetails", PILOT, {"$set": {"disconnected": at + 20}}),
    ]


def look(received: int = 0, sent: int = 0) -> Computer:
    return Computer(
        Load((0.5, 1.0, 2.25)),
        [Disk("/dev/mapper/vg.0-home", "/", 100, 30, 70)],
        [Memory("mem", 512, 100), Memory("swap", 0, 0)],
        [Traffic("eth0.1", received, sent)],
    )


def test_each_minute_the_values_of_the_original() -> None:
    reports = monitor()
    reports.periodic(0, look())
    commands = reports.periodic(7, look(3 << 20, 1 << 19))
    assert all(isinstance(command, ReportEventValue) for command in commands)
    infos = [info_of(command) for command in commands]
    assert {info["component"] for info in infos} == {"jobmanager.generic.alpha"}
    assert {info["event"]: info["value"] for info in infos} == {
        "queuedJobs": "7",
        "system.load.1min": "0.5",
        "system.load.5min": "1",
        "system.load.15min": "2.25",
        "system.disk.used.vg_0-home": "30",
        "system.disk.available.vg_0-home": "70",
        "system.ram.used.mem": "512",
        "system.ram.available.mem": "100",
        "system.ram.used.swap": "0",
        "system.ram.available.swap": "0",
        "system.net.in.eth0_1": "3",
        "system.net.out.eth0_1": "-0.5",
    }


def test_a_counter_that_began_anew_gives_no_traffic() -> None:
    reports = monitor()
    reports.periodic(0, look(5 << 20))
    values = {info["event"]: info["value"] for info in map(info_of, reports.periodic(0, look()))}
    assert values["system.net.in.eth0_1"] == "0"


def test_a_computer_that_says_nothing_still_has_a_queue() -> None:
    assert [info_of(command)["event"] for command in monitor().periodic(3, None)] == ["queuedJobs"]


def test_a_resource_is_one_step_of_the_path() -> None:
    assert component_of("al.pha/β x") == "jobmanager.generic.al_pha___x"
    assert component_of("") == "jobmanager.generic.unnamed"
