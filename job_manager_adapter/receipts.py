"""Checking receipts: anybody with the manager's public key can."""

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.receipt import Receipt


class ReceiptError(CopilotError):
    """The receipt was not signed by this manager, or was changed afterwards."""


def verify_receipt(receipt: Receipt, manager_key: str) -> None:
    """Raises ReceiptError unless `manager_key` (base64) signed exactly this statement."""
    statement = receipt.statement
    if statement.key != manager_key:
        raise ReceiptError(f"receipt {statement.id} is of another manager")
    key = Ed25519PublicKey.from_public_bytes(_decode(manager_key))
    try:
        key.verify(_decode(receipt.signature), receipt.signed())
    except (InvalidSignature, ValueError) as error:
        raise ReceiptError(f"receipt {statement.id}: the signature is wrong") from error


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
