"""What a client asks of the scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.harness.boinc.work import Report
from tests.harness.boinc.xml import Element, copied, is_set, number_of, parse, text_of


@dataclass(frozen=True)
class Trickle:
    """A message from a running task."""

    host: int
    result: str
    time: int
    variety: str
    body: str

    def number(self, name: str) -> float:
        """A number in its body, such as `runtime`."""
        return number_of(parse(f"<body>{self.body}</body>"), name)


@dataclass(frozen=True)
class Request:
    authenticator: str
    host: int
    """0 at the first contact of a host."""
    work_seconds: float
    platforms: tuple[str, ...]
    anonymous_versions: tuple[Element, ...]
    """Of a host whose owner provides the application."""
    in_progress: tuple[str, ...]
    knows_key: bool
    results: tuple[Element, ...]
    trickles: tuple[Element, ...]
    root: Element

    @property
    def anonymous(self) -> bool:
        return "anonymous" in self.platforms


def parse_request(text: str) -> Request:
    root = parse(text)
    platforms = [text_of(root, "platform_name")]
    platforms += [text_of(alternative, "name") for alternative in root.findall("alt_platform")]
    return Request(
        authenticator=text_of(root, "authenticator"),
        host=int(number_of(root, "hostid")),
        work_seconds=_work_seconds(root),
        platforms=tuple(platforms),
        anonymous_versions=tuple(root.findall("app_versions/app_version")),
        in_progress=tuple(
            text_of(other, "name") for other in root.findall("other_results/other_result")
        ),
        knows_key=root.find("code_sign_key") is not None,
        results=tuple(root.findall("result")),
        trickles=tuple(root.findall("msg_from_host")),
        root=root,
    )


def _work_seconds(root: Element) -> float:
    if is_set(root, "dont_send_work"):
        return 0.0
    return max(number_of(root, "work_req_seconds"), number_of(root, "cpu_req_secs"))


def parse_report(element: Element, workunit: str, host: int, files: Mapping[str, Path]) -> Report:
    """`files`: what has been uploaded, by logical name."""
    stderr = element.find("stderr_out")
    return Report(
        result=text_of(element, "name"),
        workunit=workunit,
        host=host,
        exit_status=int(number_of(element, "exit_status")),
        state=int(number_of(element, "state")),
        cpu_seconds=number_of(element, "final_cpu_time"),
        elapsed_seconds=number_of(element, "final_elapsed_time"),
        stderr="" if stderr is None else "".join(stderr.itertext()),
        files=files,
    )


def parse_trickles(request: Request, host: int) -> Iterator[Trickle]:
    for message in request.trickles:
        known = ("result_name", "time", "variety")
        body = "".join(copied(part) for part in message if part.tag not in known)
        yield Trickle(
            host=host,
            result=text_of(message, "result_name"),
            time=int(number_of(message, "time")),
            variety=text_of(message, "variety"),
            body=body or (message.text or "").strip(),
        )
