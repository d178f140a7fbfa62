"""The scheduler: takes reports and trickles, hands out results, tells the credit so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.boinc.requests import (
    Request,
    Trickle,
    parse_report,
    parse_request,
    parse_trickles,
)
from tests.harness.boinc.versions import AppFile, AppVersion
from tests.harness.boinc.work import Report, Result
from tests.harness.boinc.xml import block, line, number_of, text_of

Validate = Callable[[Report], float | None]


@dataclass
class Host:
    number: int
    total_credit: float = 0.0
    in_progress: tuple[str, ...] = ()
    """As it said at its last contact."""


@dataclass
class Shelf:
    """All that the project knows and has."""

    url: str
    project_name: str
    authenticator: str
    code_sign_key: str
    versions: list[AppVersion]
    usage: Callable[[AppVersion], str]
    """Lines that a plan class adds to a version."""
    results: dict[str, Result] = field(default_factory=dict)
    hosts: dict[int, Host] = field(default_factory=dict)
    uploads: dict[str, Path] = field(default_factory=dict)
    trickles: list[Trickle] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    """Wrong ones, by physical name: a fault."""
    most_per_request: int = 4
    request_delay: float = 1.0

    @property
    def total_credit(self) -> float:
        return sum(host.total_credit for host in self.hosts.values())


class Scheduler:
    def __init__(
        self, shelf: Shelf, validate: Validate | None, announce: Callable[[str], None]
    ) -> None:
        self._shelf = shelf
        self._validate = validate
        self._announce = announce

    def answer(self, text: str) -> str:
        request = parse_request(text)
        if request.authenticator != self._shelf.authenticator:
            return block("scheduler_reply", _message("Invalid or missing account key", "high"))
        host = self._host(request)
        parts = [*self._acknowledgements(request, host), *self._orders(host)]
        work = list(self._work(request, host)) if request.work_seconds > 0 else []
        self._announce(f"host {host.number} asked, got {len(work)} tasks")
        if request.work_seconds > 0 and not work:
            parts.append(_message("No tasks sent", "low"))
        return block("scheduler_reply", *self._heading(request, host), *parts, *self._sent(work))

    def _host(self, request: Request) -> Host:
        number = request.host or max(self._shelf.hosts, default=0) + 1
        host = self._shelf.hosts.setdefault(number, Host(number))
        host.in_progress = request.in_progress
        return host

    def _heading(self, request: Request, host: Host) -> Iterator[str]:
        yield line("scheduler_version", 720)
        yield line("master_url", self._shelf.url)
        yield line("request_delay", self._shelf.request_delay)
        yield line("project_name", self._shelf.project_name)
        yield line("userid", 1) + line("user_name", "Volunteer & Co") + line("teamid", 0)
        yield line("email_hash", "0" * 32) + line("cross_project_id", "1" * 32)
        yield line("user_total_credit", self._shelf.total_credit)
        yield line("host_total_credit", host.total_credit)
        if not request.host:
            yield line("hostid", host.number)
        if not request.knows_key:
            yield f"<code_sign_key>\n{self._shelf.code_sign_key}</code_sign_key>\n"

    def _acknowledgements(self, request: Request, host: Host) -> Iterator[str]:
        for element in request.results:
            self._take_report(text_of(element, "name"), request, host)
            yield block("result_ack", line("name", text_of(element, "name")))
        for trickle in parse_trickles(request, host.number):
            self._shelf.trickles.append(trickle)
            self._announce(f"trickle {trickle.variety} of {trickle.result}")
        if request.trickles:
            yield "<message_ack/>\n"

    def _take_report(self, name: str, request: Request, host: Host) -> None:
        result = self._shelf.results.get(name)
        if result is None or result.report is not None:
            return  # said again because our answer was lost
        (element,) = (one for one in request.results if text_of(one, "name") == name)
        report = parse_report(element, result.workunit.name, host.number, self._files(result))
        if report.succeeded and self._validate is not None:
            result.granted = self._validate(report)
            host.total_credit += result.granted or 0.0
        result.report = report
        self._announce(f"report of {name}: exit status {report.exit_status}")

    def _files(self, result: Result) -> dict[str, Path]:
        here = self._shelf.uploads
        return {named: here[name] for named, name in result.outputs.items() if name in here}

    def _orders(self, host: Host) -> Iterator[str]:
        mine = (result for result in self._shelf.results.values() if result.host == host.number)
        for result in mine:
            if result.to_abort and result.name in host.in_progress:
                yield block("result_abort", line("name", result.name))
            for text in result.trickles_down:
                heading = line("result_name", result.name) + line("time", int(time.time()))
                yield block("trickle_down", heading, f"{text}\n")
            result.trickles_down.clear()

    def _work(self, request: Request, host: Host) -> Iterator[tuple[Result, str]]:
        """Results not sent yet, at most one of a workunit to a host, each with its version."""
        has = {one.workunit.name for one in self._shelf.results.values() if one.host == host.number}
        room = self._shelf.most_per_request
        for result in self._shelf.results.values():
            if not room:
                return
            if result.host is not None or result.to_abort or result.workunit.name in has:
                continue
            if (version := self._version(request, result)) is None:
                continue
            has.add(result.workunit.name)
            room -= 1
            result.host = host.number
            self._announce(f"sent {result.name} to host {host.number}")
            yield result, version

    def _version(self, request: Request, result: Result) -> str | None:
        """The lines of the result that name it, or None if there is none for this host."""
        if request.anonymous:
            return next(_anonymous(request, result.workunit.app_name), None)
        version = self._newest(request.platforms, result.workunit.app_name)
        if version is None:
            return None
        return (
            line("platform", version.platform)
            + line("version_num", version.number)
            + (line("plan_class", version.plan_class) if version.plan_class else "")
        )

    def _newest(self, platforms: tuple[str, ...], app_name: str) -> AppVersion | None:
        fitting = [
            version
            for version in self._shelf.versions
            if version.app_name == app_name and version.platform in platforms
        ]
        return fitting[-1] if fitting else None

    def _sent(self, work: list[tuple[Result, str]]) -> Iterator[str]:
        apps = {result.workunit.app_name for result, _ in work}
        for name in sorted(apps):
            yield block("app", line("name", name), line("user_friendly_name", name.title()))
        chosen = {lines: result.workunit.app_name for result, lines in work}
        for version in self._shelf.versions:
            if any(
                version.app_name == app and _names(lines, version) for lines, app in chosen.items()
            ):
                yield from self._version_documents(version)
        for workunit in {result.workunit.name: result.workunit for result, _ in work}.values():
            yield workunit.document()
        for result, lines in work:
            yield self._result_document(result, lines)

    def _version_documents(self, version: AppVersion) -> Iterator[str]:
        for file in version.files:
            yield file.info(f"{self._shelf.url}download/", self._signature(file))
        yield version.document(self._shelf.usage(version))

    def _signature(self, file: AppFile) -> str:
        return self._shelf.signatures.get(file.physical_name, file.signature)

    def _result_document(self, result: Result, version: str) -> str:
        heading = line("name", result.name) + line("wu_name", result.workunit.name)
        deadline = line("report_deadline", time.time() + result.workunit.bounds["delay_bound"])
        return result.file_infos + block("result", heading, deadline, version, result.body)


def _names(lines: str, version: AppVersion) -> bool:
    plan_class = f"<plan_class>{version.plan_class}</plan_class>"
    return (
        f"<platform>{version.platform}</platform>" in lines
        and f"<version_num>{version.number}</version_num>" in lines
        and (plan_class in lines or not version.plan_class)
    )


def _anonymous(request: Request, app_name: str) -> Iterator[str]:
    for version in request.anonymous_versions:
        if text_of(version, "app_name") == app_name:
            # with a platform in it the client would look for a version of ours
            yield line("version_num", int(number_of(version, "version_num")))


def _message(text: str, priority: str) -> str:
    return f'<message priority="{priority}">{text}</message>\n'
