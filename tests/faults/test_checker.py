"""The checker must bite: what it is there to find is shown to it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.job import JobState, Outcome
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.client.receipts import ReceiptError
from job_manager_adapter.services.context import Ed25519Signer
from job_manager_adapter.views import AttemptView, JobView
from tests.faults.checker import Evidence, takeovers, violations
from tests.faults.jobs import Ledger

JOB = f"j-{'0' * 20}"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = Ed25519Signer(Ed25519PrivateKey.generate())


def attempt(number: int, outcome: Outcome) -> AttemptView:
    return AttemptView(attempt=number, state="ended", outcome=outcome, leased_at=NOW)


def receipt(number: int = 1, ident: str = "0") -> Receipt:
    statement = Statement(
        key=SIGNER.public_key,
        id=f"r-{ident * 20}",
        enrolment=f"e-{'0' * 20}",
        launcher="A" * 43,
        pilot=f"p-{'0' * 20}",
        experiment="demo",
        job=JOB,
        attempt=number,
        cpu_seconds=1.0,
        granted=0.5,
        leased_at=1.0,
        accepted_at=2.0,
    )
    return Receipt(statement=statement, signature=SIGNER.sign(statement.canonical()))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path, acknowledged=[JOB])
    made.log.write_text(f"{JOB} 1 start 7\n{JOB} 1 end 7\n")
    return made


def job(*attempts: AttemptView, state: JobState = JobState.SUCCEEDED) -> JobView:
    data = {"id": JOB, "batch": f"b-{'0' * 20}", "experiment": "demo", "name": "x", "state": state}
    needed = {"max_attempts": 3, "submitted_at": NOW, "changed_at": NOW, "attempts": attempts}
    return JobView.model_validate({**data, **needed})


GOOD = Evidence(
    jobs=[job(attempt(1, Outcome.SUCCEEDED))],
    receipts=[receipt()],
    kept=[receipt()],
    granted=0.5,
    manager_key=SIGNER.public_key,
    results={JOB: f"{JOB} 1"},
)


def test_what_is_good_is_not_blamed(ledger: Ledger) -> None:
    assert violations(GOOD, ledger) == []


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (replace(GOOD, jobs=[]), "lost"),
        (replace(GOOD, jobs=[job(state=JobState.FAILED)]), "lost"),
        (
            replace(GOOD, jobs=[job(*(attempt(n, Outcome.SUCCEEDED) for n in (1, 2)))]),
            "accepted 2 times",
        ),
        (replace(GOOD, results={JOB: f"{JOB} 2"}), "wrong result"),
        (replace(GOOD, receipts=[], granted=0.0, kept=[]), "credited 0 times"),
        (replace(GOOD, receipts=[receipt(), receipt(ident="1")], granted=1.0), "credited 2 times"),
        (replace(GOOD, granted=1.0), "the ledger grants"),
        (replace(GOOD, kept=[receipt(ident="1")]), "does not know"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_found(ledger: Ledger, evidence: Evidence, word: str) -> None:
    assert any(word in one for one in violations(evidence, ledger))


def test_a_job_that_nobody_asked_for_is_found(ledger: Ledger) -> None:
    ledger.acknowledged.clear()
    assert any("twice" in one for one in violations(GOOD, ledger))


def test_an_attempt_that_ran_twice_is_found(ledger: Ledger) -> None:
    with ledger.log.open("a") as file:
        file.write(f"{JOB} 1 start 8\n")
    assert any("ran 2 times" in one for one in violations(GOOD, ledger))


def test_a_forged_receipt_is_found(ledger: Ledger) -> None:
    forged = receipt().model_copy(update={"signature": receipt(2).signature})
    with pytest.raises(ReceiptError):
        violations(replace(GOOD, kept=[forged]), ledger)


def test_takeovers_are_what_silent_pilots_lost() -> None:
    lost = job(attempt(1, Outcome.LOST), attempt(2, Outcome.SUCCEEDED))
    assert [(one.job, one.attempt) for one in takeovers(replace(GOOD, jobs=[lost]))] == [(JOB, 1)]
    assert takeovers(GOOD) == []
