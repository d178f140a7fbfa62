"""Rows of a query as records, and receipts as rows; for every database that keeps texts, numbers
and JSON."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Output, Usage
from job_manager_adapter.store.fleet_records import PilotRow
from job_manager_adapter.store.records import NO_USAGE, AttemptRow, JobRow, SignedReceipt

OUTPUTS: TypeAdapter[tuple[Output, ...]] = TypeAdapter(tuple[Output, ...])
Row = Sequence[Any]


def job(row: Row) -> JobRow:
    """Columns in the order of the record's fields."""
    values = list(row)
    values[5] = JobState(row[5])
    values[13] = FailureClass(row[13]) if row[13] else None
    values[17] = json.loads(row[17])
    return JobRow(*values)


def attempt(job_id: str, row: Row) -> AttemptRow:
    """Columns in the order of the record's fields, without the job."""
    values = list(row)
    values[6] = Outcome(row[6]) if row[6] else None
    values[7] = FailureClass(row[7]) if row[7] else None
    values[8], values[9] = bool(row[8]), bool(row[9])
    values[13] = Usage.model_validate_json(row[13]) if row[13] else NO_USAGE
    values[14] = OUTPUTS.validate_json(row[14]) if row[14] else ()
    values[16] = Outcome(row[16]) if row[16] else None
    return AttemptRow(job_id, *values)


def pilot(row: Row) -> PilotRow:
    """Columns in the order of the record's fields."""
    values = list(row)
    values[5] = _capabilities(row[5])
    for index in range(8, 11):
        values[index] = bool(row[index])
    return PilotRow(*values)


@lru_cache(maxsize=1024)
def _capabilities(text: str) -> Capabilities:
    """Thousands of pilots share few of them, with a hundred flags each."""
    return Capabilities.model_validate_json(text)


def receipt(signed: SignedReceipt) -> tuple[Any, ...]:
    return (signed.id, signed.job, signed.experiment, signed.launcher, signed.body)


def ledger(receipts: Sequence[SignedReceipt]) -> list[tuple[Any, ...]]:
    """What each experiment's line grows by."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0, 0.0])
    for each in receipts:
        row = sums[each.experiment]
        row[0] += each.granted
        row[1] += 1
        row[2] += each.cpu_seconds
    return [
        (name, granted, int(count), cpu) for name, (granted, count, cpu) in sorted(sums.items())
    ]


def credit(receipts: Sequence[SignedReceipt]) -> list[tuple[Any, ...]]:
    """Of each launcher's host: in one order everywhere, so that two managers never wait for each
    other."""
    jobs: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    for each in receipts:
        jobs[each.launcher] += 1
        sums[each.launcher] += each.granted
    return [(launcher, jobs[launcher], sums[launcher]) for launcher in sorted(jobs)]
