"""Prometheus metrics. Labels come from closed sets; never an id of a pilot, job or host."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.job import FailureClass, Outcome
from job_manager_adapter.original_metrics import OriginalMetrics
from job_manager_adapter.services.build import Services, Stats
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.timings import Durations
from job_manager_adapter.views import PilotState, Role

log = logging.getLogger(__name__)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CARRIERS = ("websocket", "poll", "xmpp", "copilot1")
_DIRECTIONS = ("in", "out")
_FRESH_SECONDS = 10.0
_LAG_PERIOD = 0.5
_TALLIES = {
    "pilots_registered": "Enrolments that were accepted",
    "pilots_lost": "Pilots that fell silent for a lease's length",
    "leases_expired": "Attempts that were taken back because their lease ran out",
}


class _Totals:
    """Sums that need the database; asked for at most every `_FRESH_SECONDS`."""

    def __init__(self, services: Services, experiments: Sequence[str]) -> None:
        self._services = services
        self._experiments = experiments
        self._read_at = float("-inf")
        self.jobs: dict[tuple[str, str], int] = {}
        self.credit: dict[str, float] = {}

    async def refresh(self) -> None:
        if time.monotonic() - self._read_at < _FRESH_SECONDS:
            return
        self._read_at = time.monotonic()
        for name in self._experiments:
            caller = Principal(token="", role=Role.EXPERIMENT, experiment=name)
            counts = await self._services.jobs.counts(caller, name)
            for state, count in counts.counts.items():
                self.jobs[state.value, name] = count
            self.credit[name] = (await self._services.credit.summary(caller)).granted


class _FromServices(Collector):
    """What the services count themselves, read at each scrape."""

    def __init__(self, services: Services, totals: _Totals) -> None:
        self._services = services
        self._totals = totals

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        stats = self._services.stats()
        yield from self._now(stats)
        yield from _attempts(stats)
        for name, text in _TALLIES.items():
            yield CounterMetricFamily(f"copilot_{name}", text, value=stats.tallies.get(name, 0))
        yield from _durations(stats)
        yield from _store(stats)

    def _now(self, stats: Stats) -> Iterator[Metric]:
        pilots = GaugeMetricFamily("copilot_pilots", "Pilots by state", labels=["state"])
        for state in PilotState:
            pilots.add_metric([state.value], stats.pilots.get(state, 0))
        yield pilots
        jobs = GaugeMetricFamily("copilot_jobs", "Jobs by state", labels=["state", "experiment"])
        for (job_state, experiment), count in self._totals.jobs.items():
            jobs.add_metric([job_state, experiment], count)
        yield jobs
        yield GaugeMetricFamily("copilot_leases", "Open leases", value=stats.leases_open)
        credit = CounterMetricFamily(
            "copilot_credit_granted", "Credit in the ledger, in BOINC's unit", labels=["experiment"]
        )
        for experiment, granted in self._totals.credit.items():
            credit.add_metric([experiment], granted)
        yield credit


def _attempts(stats: Stats) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "copilot_attempts_finished", "Attempts that ended, since the start", labels=["outcome"]
    )
    for outcome in Outcome:
        ended.add_metric([outcome.value], stats.attempts_ended.get(outcome.value, 0))
    yield ended
    failed = CounterMetricFamily(
        "copilot_attempts_failed",
        "Attempts that did not succeed, since the start",
        labels=["failure_class"],
    )
    for failure_class in FailureClass:
        failed.add_metric([failure_class.value], stats.attempts_failed.get(failure_class, 0))
    yield failed


def _durations(stats: Stats) -> Iterator[Metric]:
    timings = stats.timings
    text = "Rounds of matching that found something"
    yield _histogram("copilot_match_duration_seconds", text, timings.match)
    text = "From a job's submission to its first lease"
    yield _histogram("copilot_job_wait_seconds", text, timings.wait)
    text = "Run time of payloads, as pilots say"
    yield _histogram("copilot_job_run_seconds", text, timings.run)


def _store(stats: Stats) -> Iterator[Metric]:
    yield CounterMetricFamily("copilot_store_commits", "Commits", value=stats.commits)
    text = "Time in commits"
    yield CounterMetricFamily("copilot_store_commit_seconds", text, value=stats.commit_seconds)
    text = "Operations committed"
    yield CounterMetricFamily("copilot_store_operations", text, value=stats.operations)


def _histogram(name: str, text: str, durations: Durations) -> Metric:
    return HistogramMetricFamily(
        name, text, buckets=durations.cumulative(), sum_value=durations.total
    )


class Metrics:
    """All metrics of one manager, in a registry of their own."""

    def __init__(self, services: Services, experiments: Sequence[str], version: str) -> None:
        self.registry = CollectorRegistry()
        self._totals = _Totals(services, experiments)
        self.registry.register(_FromServices(services, self._totals))
        self.originals = OriginalMetrics(self.registry)
        Info("copilot_build", "Version of the manager", registry=self.registry).info(
            {"version": version}
        )
        heartbeats = self._counter("copilot_heartbeats", "Frames from pilots", "transport")
        self._heartbeats = {name: heartbeats.labels(name) for name in _CARRIERS}
        staged = self._counter("copilot_stage_bytes", "Bytes of files moved", "direction")
        self._staged = {name: staged.labels(name) for name in _DIRECTIONS}
        self._requests = self._counter("copilot_http_requests", "Requests answered", "status_class")
        for status in range(1, 6):
            self._requests.labels(f"{status}xx")
        self._seconds = Histogram(
            "copilot_http_request_seconds",
            "Time to answer, without sockets, polls, streams and files",
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
        )
        self._lag = Histogram(
            "copilot_event_loop_lag_seconds",
            "How late the event loop woke up",
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
        )

    def count_frame(self, carrier: str) -> None:
        self._heartbeats[carrier].inc()

    def count_bytes(self, direction: str, count: int) -> None:
        self._staged[direction].inc(count)

    async def text(self) -> bytes:
        """The exposition. Where the store is away, sums from it are those of before."""
        try:
            await self._totals.refresh()
        except CopilotError as error:
            log.warning("metrics without the store: %s", error)
        return generate_latest(self.registry)

    async def watch_loop(self) -> None:
        """Measures the event loop's lag until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PERIOD
            await asyncio.sleep(_LAG_PERIOD)
            self._lag.observe(max(0.0, loop.time() - due))

    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Counts requests and times the quick ones."""

        @web.middleware
        async def measure(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            start = time.perf_counter()
            response = await handler(request)
            self._requests.labels(f"{response.status // 100}xx").inc()
            if request.path.startswith("/api/v1/jobs"):
                self._seconds.observe(time.perf_counter() - start)
            return response

        return measure

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, [label], registry=self.registry)
