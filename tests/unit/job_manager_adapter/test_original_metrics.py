"""Reports of original components on /metrics, however many names somebody makes up."""

import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from copilot_agent.protocol.copilot1.job_commands import HaveJob
from copilot_agent.protocol.copilot1.monitor_commands import (
    ReportEvent,
    ReportEventDuration,
    ReportEventValue,
    StoreEventDetails,
    UpdateEventDetails,
)
from job_manager_adapter.original_metrics import MAX_SERIES, MAX_SESSIONS, OriginalMetrics

JM = "jobmanager.generic.alpha"


class Fixture:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = OriginalMetrics(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"copilot_original_{name}", labels or None)

    @property
    def lines(self) -> list[str]:
        return generate_latest(self.registry).decode().splitlines()


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_each_kind_of_report_has_its_metric(fixture: Fixture) -> None:
    for _ in range(2):
        assert fixture.metrics.take(ReportEvent(component=JM, event="job.start"))
    fixture.metrics.take(ReportEventDuration(component=JM, event="job.succeeded", duration=90))
    for value in (3.0, 5.5):
        fixture.metrics.take(ReportEventValue(component=JM, event="queuedJobs", value=value))
    assert fixture.value("events_total", component=JM, event="job.start") == 2
    assert fixture.value("event_seconds_sum", component=JM, event="job.succeeded") == 90
    assert fixture.value("event_value", component=JM, event="queuedJobs") == 5.5
    assert fixture.value("reports_total", command="reportEventValue") == 2


def test_other_commands_are_no_reports(fixture: Fixture) -> None:
    assert not fixture.metrics.take(HaveJob())


def test_names_beyond_the_bound_share_one_series(fixture: Fixture) -> None:
    for number in range(10 * MAX_SERIES):
        fixture.metrics.take(ReportEvent(component=f"c{number}", event="e"))
        fixture.metrics.take(ReportEventValue(component=f"c{number}", event="e", value=1))
    assert fixture.value("events_total", component="other", event="other") == 9 * MAX_SERIES
    assert fixture.value("event_value", component="other", event="other") is None
    fixture.metrics.take(ReportEvent(component="c0", event="e"))
    assert fixture.value("events_total", component="c0", event="e") == 2
    series = [line for line in fixture.lines if line.startswith("copilot_original_events_total")]
    assert len(series) == MAX_SERIES + 1


@pytest.mark.parametrize("name", ["a b", 'a"}', "-x", "x" * 101, "{evil}"])
def test_strange_names_are_not_shown(fixture: Fixture, name: str) -> None:
    fixture.metrics.take(ReportEvent(component=name, event="e"))
    fixture.metrics.take(ReportEvent(component="c", event=name))
    assert fixture.value("events_total", component="other", event="other") == 2
    series = [line for line in fixture.lines if line.startswith("copilot_original_events_total")]
    assert len(series) == 1


def test_a_duration_that_cannot_be_is_counted_and_not_summed(fixture: Fixture) -> None:
    for seconds in (-5.0, 1e300):
        fixture.metrics.take(ReportEventDuration(component=JM, event="e", duration=seconds))
    assert fixture.value("event_seconds_count", component=JM, event="e") is None
    assert fixture.value("reports_total", command="reportEventDuration") == 2


def test_details_are_kept_and_updates_not_carried_out(fixture: Fixture) -> None:
    fixture.metrics.take(StoreEventDetails(details='{"session": "s", "jobs": 1}'))
    fixture.metrics.take(UpdateEventDetails(session="s", updates='{"$inc": {"jobs": 1}}'))
    assert fixture.metrics.details.sessions == {
        "s": {"details": {"session": "s", "jobs": 1}, "update": {"$inc": {"jobs": 1}}}
    }
    assert fixture.value("sessions") == 1


def test_details_do_not_pile_up(fixture: Fixture) -> None:
    for number in range(MAX_SESSIONS + 10):
        fixture.metrics.take(UpdateEventDetails(session=f"s{number}", updates='{"$set": {}}'))
    assert fixture.value("sessions") == MAX_SESSIONS
    assert "s0" not in fixture.metrics.details.sessions


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 4000, '{"session": 7}', json.dumps({"session": "s", "x": "x" * 5000})]
)
def test_details_in_another_form_are_only_counted(fixture: Fixture, text: str) -> None:
    fixture.metrics.take(StoreEventDetails(details=text))
    assert fixture.value("reports_total", command="storeEventDetails") == 1
    assert fixture.value("sessions") == 0
