"""A receipt is checked by anybody with the manager's public key."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.client import ReceiptError, verify_receipt

KEY = Ed25519PrivateKey.generate()


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


PUBLIC = encode(KEY.public_key().public_bytes_raw())


def receipt(key: Ed25519PrivateKey = KEY) -> Receipt:
    statement = Statement(
        key=PUBLIC,
        id="r-" + "0" * 20,
        enrolment="e-" + "0" * 20,
        launcher=PUBLIC,
        pilot="p-" + "0" * 20,
        experiment="demo",
        job="j-" + "0" * 20,
        attempt=1,
        cpu_seconds=12.5,
        granted=12.5 * 200 / 86400,
        leased_at=1.0,
        accepted_at=2.0,
    )
    return Receipt(statement=statement, signature=encode(key.sign(statement.canonical())))


def test_good_receipt_also_after_a_journey_as_json() -> None:
    verify_receipt(Receipt.model_validate_json(receipt().model_dump_json()), PUBLIC)


def test_changed_credit_is_found() -> None:
    good = receipt()
    richer = good.statement.model_copy(update={"granted": 1000.0})
    with pytest.raises(ReceiptError, match="signature"):
        verify_receipt(good.model_copy(update={"statement": richer}), PUBLIC)


def test_forged_signature_is_found() -> None:
    with pytest.raises(ReceiptError, match="signature"):
        verify_receipt(receipt(Ed25519PrivateKey.generate()), PUBLIC)


def test_another_managers_key_is_refused() -> None:
    other = encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(ReceiptError, match="another manager"):
        verify_receipt(receipt(), other)
