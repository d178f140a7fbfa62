"""Checking receipts, for users of the client."""

from job_manager_adapter.receipts import ReceiptError, verify_receipt

__all__ = ["ReceiptError", "verify_receipt"]
