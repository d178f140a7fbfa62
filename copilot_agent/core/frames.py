"""Builds the pilot's frames, within the bound on their size."""

from collections.abc import Iterable
from typing import Any

from copilot_agent.core.attempts import Attempt, Stage
from copilot_agent.protocol.frames import (
    Held,
    LinkRequest,
    PilotFrame,
    Progress,
    Report,
    Wants,
)

REPORT_BUDGET = 400_000
TAIL_BUDGET = 100_000
MAX_REPORTS = 200
MAX_LINK_REQUESTS = 200


def build(
    attempts: Iterable[Attempt],
    now: float,
    *,
    wants: Wants,
    all_reports: bool,
    with_progress: bool,
    **rest: Any,  # the other fields of PilotFrame as they are
) -> PilotFrame:
    """`all_reports`: also those sent before in this session."""
    held = list(attempts)
    return PilotFrame(
        wants=wants,
        holding=tuple(Held(job=a.key.job, attempt=a.key.attempt, phase=a.phase) for a in held),
        progress=_progress(held, now) if with_progress else (),
        reports=_reports(held, all_reports),
        link_requests=tuple(
            LinkRequest(job=a.key.job, attempt=a.key.attempt) for a in held if a.links_wanted
        )[:MAX_LINK_REQUESTS],
        **rest,
    )


def unsent_reports(attempts: Iterable[Attempt]) -> bool:
    return any(a.stage is Stage.REPORTING and not a.report_sent for a in attempts)


def _progress(held: list[Attempt], now: float) -> tuple[Progress, ...]:
    budget = TAIL_BUDGET
    news = []
    for attempt in held:
        if attempt.stage is not Stage.RUNNING:
            continue
        item = attempt.progress(now, with_tail=budget > 0)
        budget -= len(item.log_tail or "")
        news.append(item)
    return tuple(news)


def _reports(held: list[Attempt], again: bool) -> tuple[Report, ...]:
    budget = REPORT_BUDGET
    chosen: list[Report] = []
    for attempt in held:
        report = attempt.report
        if attempt.stage is not Stage.REPORTING or report is None:
            continue
        if attempt.report_sent and not again:
            continue
        budget -= 1000 + 6 * len(report.message) + 500 * len(report.outputs)
        if chosen and (budget < 0 or len(chosen) >= MAX_REPORTS):
            break
        attempt.report_sent = True
        chosen.append(report)
    return tuple(chosen)
