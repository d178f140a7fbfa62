"""What the demo makes of results and receipts, and what it does not let pass."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.receipt import CREDIT_PER_CPU_SECOND, Receipt, Statement
from deploy.demo.physics import Masses, largest_bin_difference, merge, sits_on_the_peak
from deploy.demo.summary import credit_of
from job_manager_adapter.client import ReceiptError

KEY = Ed25519PrivateKey.generate()
DIGEST = "0" * 64


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


PUBLIC = encode(KEY.public_key().public_bytes_raw())


def receipt(number: int, *, cpu: float = 10.0, granted: float | None = None) -> Receipt:
    statement = Statement(
        key=PUBLIC,
        id=f"r-{number:020}",
        enrolment="e-" + "0" * 20,
        launcher=PUBLIC,
        pilot="p-" + "0" * 20,
        experiment="demo",
        job=f"j-{number:020}",
        attempt=1,
        cpu_seconds=cpu,
        granted=cpu * CREDIT_PER_CPU_SECOND if granted is None else granted,
        leased_at=1.0,
        accepted_at=2.0,
    )
    return Receipt(statement=statement, signature=encode(KEY.sign(statement.canonical())))


def masses(seed: int, *values: float) -> Masses:
    return Masses(seed=seed, masses_gev=values, event_record_sha256=DIGEST)


def test_credit_is_the_sum_of_good_receipts() -> None:
    assert credit_of([receipt(1), receipt(2, cpu=5)], PUBLIC) == pytest.approx(15 * 200 / 86400)


def test_a_second_receipt_for_an_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="two receipts"):
        credit_of([receipt(1), receipt(1)], PUBLIC)


def test_credit_that_does_not_follow_from_cpu_time_is_refused() -> None:
    with pytest.raises(ValueError, match="does not follow"):
        credit_of([receipt(1, granted=1.0)], PUBLIC)


def test_a_forged_receipt_is_refused() -> None:
    with pytest.raises(ReceiptError):
        credit_of([receipt(1).model_copy(update={"signature": "A" * 86})], PUBLIC)


def test_the_merged_spectrum_does_not_depend_on_who_was_first() -> None:
    one, two = masses(1, 90.0, 92.0), masses(2, 91.0)
    assert merge([one, two]) == merge([two, one])
    assert merge([one, two]).mean == 91.0
    assert merge([one, two]).mean_error == pytest.approx(1 / 3**0.5)


def test_the_histogram_counts_what_lies_inside() -> None:
    counts = merge([masses(1, 65.9, 66.0, 66.5, 91.2, 115.99, 116.0)]).histogram()
    assert (counts[0], counts[25], counts[-1], sum(counts)) == (2, 1, 1, 4)


def test_the_largest_bin_difference() -> None:
    assert largest_bin_difference(masses(1, 90.1, 90.2, 95.0), masses(1, 90.1, 95.0)) == 1
    assert largest_bin_difference(masses(1, 90.1), masses(1, 90.1)) == 0


@pytest.mark.parametrize(
    ("mean", "error", "fine"),
    [(91.7, 0.3, True), (86.0, 0.3, False), (95.0, 0.3, False), (95.0, 1.0, True)],
)
def test_the_peak(mean: float, error: float, fine: bool) -> None:
    assert sits_on_the_peak(mean, error) is fine
