"""Looks at a cell from outside: the API, results, receipts, the scheduler, what payloads wrote.

It knows nothing of how the fault was done, and nothing of the manager's database.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from copilot_agent.protocol.job import JobState, Outcome
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.client import Client
from job_manager_adapter.client.receipts import verify_receipt
from job_manager_adapter.views import JobView
from tests.faults.jobs import SCHEDULED, Ledger
from tests.faults.steps import RESULT
from tests.harness import programs
from tests.harness.reference_adapter import FileScheduler

END_SECONDS = 60.0


@dataclass(frozen=True)
class Evidence:
    """All that is known when everything has ended."""

    jobs: Sequence[JobView]
    receipts: Sequence[Receipt]
    """Of the manager's ledger."""
    kept: Sequence[Receipt]
    """What volunteers have on their disks."""
    granted: float
    manager_key: str
    results: dict[str, str]
    """First line of each job's result, by job."""


async def gather(client: Client, ledger: Ledger, receipt_files: Sequence[Path]) -> Evidence:
    """Waits until all that was acknowledged has ended and every receipt is delivered."""
    await ended(client, ledger)
    jobs = [await client.jobs.show(one.id) for one in (await client.jobs.list()).items]
    receipts = (await client.credit.receipts()).items
    due = {one.statement.id for one in receipts}

    def delivered() -> bool:
        return due <= {one.statement.id for one in kept_receipts(receipt_files)}

    await programs.eventually(delivered, END_SECONDS, "the receipts' delivery")
    credit = await client.credit.total()
    results = {}
    for job in jobs:
        files = await client.files.fetch_outputs(job, ledger.directory / "fetched")
        results[job.id] = "".join(_first_line(path) for path in files if path.name == RESULT)
    return Evidence(
        jobs,
        receipts,
        kept_receipts(receipt_files),
        credit.granted,
        credit.manager_key,
        results,
    )


async def ended(client: Client, ledger: Ledger) -> None:
    """Raises AssertionError that says which jobs have not."""
    left: list[str] = []

    async def all_ended() -> bool:
        jobs = {job.id: job for job in (await client.jobs.list()).items}
        states = {job: jobs[job].state if job in jobs else None for job in ledger.acknowledged}
        left[:] = [f"{job} {state}" for job, state in states.items() if not (state and state.final)]
        final = [job for job in jobs.values() if job.experiment == SCHEDULED and job.state.final]
        left.extend(ledger.upstream[len(final) :])
        return not left

    try:
        await programs.eventually(all_ended, END_SECONDS)
    except AssertionError:
        raise AssertionError(f"not ended after {END_SECONDS:.0f} s: {', '.join(left)}") from None


def kept_receipts(files: Sequence[Path]) -> list[Receipt]:
    lines = [line for path in files if path.exists() for line in path.read_text().splitlines()]
    return [Receipt.model_validate_json(line) for line in lines]


def _first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline().strip()


def violations(evidence: Evidence, ledger: Ledger) -> list[str]:
    """What was promised and is not so."""
    found: list[str] = []
    jobs = {job.id: job for job in evidence.jobs}
    found += [f"lost: {job} is not there" for job in ledger.acknowledged if job not in jobs]
    extra = Counter(job.experiment for job in evidence.jobs if job.id not in ledger.acknowledged)
    if extra != Counter([SCHEDULED] * len(ledger.upstream)):
        found.append(f"submitted twice: jobs that nobody asked for: {dict(extra)}")
    for job in evidence.jobs:
        found += _of_job(job, evidence)
    found += _of_credit(evidence)
    found += _of_payloads(ledger)
    return found


def _of_job(job: JobView, evidence: Evidence) -> list[str]:
    if job.state is not JobState.SUCCEEDED:
        return [f"lost: {job.id} is {job.state}: {job.message}"]
    found = []
    accepted = [one.attempt for one in job.attempts if one.outcome is Outcome.SUCCEEDED]
    if len(accepted) != 1:
        found.append(f"accepted {len(accepted)} times: {job.id}, attempts {accepted}")
    made_by = [f"{job.id} {number}" for number in accepted]
    if [evidence.results[job.id]] != made_by:
        found.append(f"wrong result: {job.id} has that of {evidence.results[job.id]!r}")
    credited = [one.statement for one in evidence.receipts if one.statement.job == job.id]
    if [one.attempt for one in credited] != accepted:
        found.append(f"credited {len(credited)} times: {job.id}")
    return found


def _of_credit(evidence: Evidence) -> list[str]:
    found = []
    total = sum(one.statement.granted for one in evidence.receipts)
    if abs(total - evidence.granted) > 1e-9:
        found.append(f"the ledger grants {evidence.granted}, its receipts {total}")
    issued = {one.statement.id: one for one in evidence.receipts}
    for receipt in evidence.kept:
        verify_receipt(receipt, evidence.manager_key)
        if issued.get(receipt.statement.id) != receipt:
            found.append(f"a receipt that the ledger does not know: {receipt.statement.id}")
    return found


def _of_payloads(ledger: Ledger) -> list[str]:
    """An attempt is one try: its payload is started once."""
    starts = Counter((one.job, one.attempt) for one in ledger.lines() if one.word == "start")
    return [
        f"ran {count} times: {job} attempt {n}" for (job, n), count in starts.items() if count > 1
    ]


async def of_scheduler(scheduler: FileScheduler, ledger: Ledger) -> list[str]:
    """It hears of the end soon after the users."""

    def untold() -> list[str]:
        jobs = scheduler.read()
        states = {name: jobs.get(name, {}).get("state") for name in ledger.upstream}
        return [f"{name}: {state}" for name, state in states.items() if state != "succeeded"]

    try:
        await programs.eventually(lambda: not untold(), END_SECONDS)
    except AssertionError:
        return [f"the scheduler was not told: {', '.join(untold())}"]
    return []


@dataclass(frozen=True)
class Takeover:
    """A job that a silent pilot lost, and the next offer of it."""

    job: str
    attempt: int
    leased_at: datetime
    at: datetime
    """When the next attempt was leased."""


def takeovers(evidence: Evidence) -> list[Takeover]:
    found = []
    for job in evidence.jobs:
        for before, after in zip(job.attempts, job.attempts[1:], strict=False):
            if before.outcome is Outcome.LOST:
                found.append(Takeover(job.id, before.attempt, before.leased_at, after.leased_at))
    return found
