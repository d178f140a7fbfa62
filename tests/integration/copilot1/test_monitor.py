"""A monitor of the original beside our manager, and original components that report to us."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree.ElementTree import Element

import pytest
from prometheus_client import CollectorRegistry

from copilot_agent.protocol.copilot1.commands import command_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.client import CLIENT, ClientStream
from job_manager_adapter.original_metrics import OriginalMetrics
from job_manager_adapter.services.context import SystemClock
from job_manager_adapter.services.events import Events
from job_manager_adapter.store.memory import MemoryStore
from job_manager_adapter.transports.copilot1.monitor import Monitor
from job_manager_adapter.transports.copilot1.monitor_reports import MonitorReports, component_of
from tests.harness.copilot1_server import DOMAIN, Copilot1Server
from tests.harness.originals import OriginalComponent, OriginalMonitor, decoded, playing
from tests.harness.programs import eventually

SECONDS = 20.0
JM = "jobmanager.generic.alpha"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_ATTRIBUTES = {
    "reportEvent": {"command", "component", "event"},
    "reportEventDuration": {"command", "component", "event", "duration"},
    "reportEventValue": {"command", "component", "event", "value"},
    "updateEventDetails": {"command", "session", "updates"},
}
_VALUE = re.compile(r"_BASE64:[A-Za-z0-9+/]*={0,2}\s?")


@asynccontextmanager
async def account(
    server: Copilot1Server, name: str, resource: str, metrics: OriginalMetrics | None = None
) -> AsyncIterator[Account]:
    async def heard(envelope: Envelope) -> None:
        if metrics is not None and envelope.info is not None:
            metrics.take(command_of(envelope.info))

    opened = Account(ClientStream(await server.login(name, resource)), heard)
    running = asyncio.create_task(opened.run())
    try:
        await asyncio.wait_for(opened.wait_online(), SECONDS)
        yield opened
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
async def events() -> AsyncIterator[Events]:
    store = MemoryStore()
    await store.open()
    made = Events(store, SystemClock())
    await made.start()
    writing = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        writing.cancel()
        await asyncio.wait([writing])
        await store.close()


def assert_as_recorded(message: Element) -> None:
    """The attributes of the recordings and no others, every value in base64."""
    assert set(message.keys()) - {_LANG} == {"from", "to", "id", "noack"}
    assert message.get("noack") == "1"
    (body,) = message
    assert (body.tag, body.attrib, body.text) == (CLIENT + "body", {}, None)
    (info,) = body
    wanted = _ATTRIBUTES[decoded(info.get("command", ""))]
    assert (info.tag, set(info.keys()), len(info)) == (CLIENT + "info", wanted, 0)
    assert all(_VALUE.fullmatch(value) for value in info.attrib.values())


async def test_a_monitor_of_the_original_understands_our_manager(
    server: Copilot1Server, events: Events
) -> None:
    async with (
        playing(OriginalMonitor(await server.login("mon", "monitor"))) as mon,
        account(server, "jm", "alpha") as ours,
    ):
        monitor = Monitor(
            f"mon@{DOMAIN}",
            MonitorReports(component_of("alpha"), details=True),
            events,
            ours.send,
            queued=lambda: 4,
            period_seconds=0.5,
        )
        running = asyncio.create_task(monitor.run())
        try:
            await mon.until(2)  # it has begun to listen
            for state, detail in (("leased", "p-1"), ("running", "p-1"), ("succeeded", "")):
                events.emit("job", "j-1", state, "demo", detail)
            await monitor.happened("error.emptyQueue")
            await eventually(lambda: mon.minutes and mon.counts[f"{JM}.error.emptyQueue"])
        finally:
            running.cancel()
            await asyncio.wait([running])
        assert mon.counts == {f"{JM}.job.start": 1, f"{JM}.error.emptyQueue": 1}
        assert mon.minutes == {f"{JM}.job.succeeded": [0.0]}
        assert mon.values[f"{JM}.queuedJobs"][0] == "4"
        assert float(mon.values[f"{JM}.system.load.15min"][0]) >= 0
        assert int(mon.values[f"{JM}.system.ram.used.mem"][0]) > 0
        for message in mon.messages:
            assert_as_recorded(message)


async def test_a_manager_that_does_not_lead_is_silent(
    server: Copilot1Server, events: Events
) -> None:
    leading, asked = False, asyncio.Event()
    said: list[Envelope] = []

    async def send(envelope: Envelope) -> None:
        said.append(envelope)

    def leads() -> bool:
        asked.set()
        return leading

    reports = MonitorReports(JM)
    monitor = Monitor(
        "mon@x", reports, events, send, queued=lambda: 0, leads=leads, period_seconds=0.05
    )
    running = asyncio.create_task(monitor.run())
    try:
        await asyncio.wait_for(asked.wait(), SECONDS)  # so it listens by now
        asked.clear()
        events.emit("job", "j-1", "leased", "demo", "p-1")
        await events.flush()
        await asyncio.wait_for(asked.wait(), SECONDS)
        assert said == []
        leading = True
        events.emit("job", "j-1", "failed", "demo", "payload")
        await eventually(lambda: any("duration" in (one.info or {}) for one in said))
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_reports_of_original_components_are_metrics(server: Copilot1Server) -> None:
    registry = CollectorRegistry()
    metrics = OriginalMetrics(registry)

    def value(name: str, event: str) -> float | None:
        labels = {"component": "jobmanager.generic.beta", "event": event}
        return registry.get_sample_value(f"copilot_original_{name}", labels)

    async with (
        account(server, "jm", "alpha", metrics),
        playing(OriginalComponent(await server.login("old-jm", "beta"))) as original,
    ):
        for values in (
            {"command": "reportEvent", "event": "job.start"},
            {"command": "reportEventDuration", "event": "job.succeeded", "duration": "90"},
            {"command": "reportEventValue", "event": "queuedJobs", "value": "17"},
        ):
            report = {"component": "jobmanager.generic.beta", **values}
            original.say(f"jm@{DOMAIN}", report, noack=True)
        await eventually(lambda: value("event_value", "queuedJobs") == 17)
    assert value("events_total", "job.start") == 1
    assert value("event_seconds_sum", "job.succeeded") == 90
