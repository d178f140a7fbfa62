"""Rows of the ledger, put together by what labels say."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from copilot_agent.protocol.base import Wire
from job_manager_adapter.views import EnrolmentCreditView

By = Literal["label", "host", "user", "team", "experiment", "enrolment"]
_WORD = re.compile(r"(host|user|team)=([^\s,]+)")


class CreditGroup(Wire):
    group: str
    """Such as `host=17`; a label, or an enrolment's id, where the label has no such word."""
    granted: float
    cpu_seconds: float
    receipts: int
    enrolments: int
    first_accepted_at: datetime
    last_accepted_at: datetime


def label_words(label: str) -> dict[str, str]:
    """`host=17 user=4, team=2`: by convention that is whose an enrolment is. First ones count."""
    words: dict[str, str] = {}
    for part in re.split(r"[\s,]+", label):
        if found := _WORD.fullmatch(part):
            words.setdefault(found[1], found[2])
    return words


def group_rows(rows: Iterable[EnrolmentCreditView], by: By) -> list[CreditGroup]:
    """The largest first."""
    groups: dict[str, list[EnrolmentCreditView]] = defaultdict(list)
    for row in rows:
        groups[_key(row, by)].append(row)
    sums = [_sum(name, members) for name, members in groups.items()]
    return sorted(sums, key=lambda group: (-group.granted, group.group))


def _key(row: EnrolmentCreditView, by: By) -> str:
    if by == "experiment":
        return row.experiment
    if by == "enrolment":
        return row.enrolment
    if by != "label" and (value := label_words(row.label).get(by)):
        return f"{by}={value}"
    return row.label or row.enrolment


def _sum(name: str, rows: Sequence[EnrolmentCreditView]) -> CreditGroup:
    return CreditGroup(
        group=name,
        granted=sum(row.granted for row in rows),
        cpu_seconds=sum(row.cpu_seconds for row in rows),
        receipts=sum(row.receipts for row in rows),
        enrolments=len({row.enrolment for row in rows}),
        first_accepted_at=min(row.first_accepted_at for row in rows),
        last_accepted_at=max(row.last_accepted_at for row in rows),
    )
