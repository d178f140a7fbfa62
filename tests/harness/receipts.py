"""Receipts of a manager with a key of its own, as launchers upload them."""

import base64
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.receipt import Receipt, Statement, root_statement
from job_manager_adapter.core.receipts import tree

ENROLMENT = make_id("e", 1.0, 17)
LAUNCHER = "l" * 43


class ReceiptMaker:
    """Signs as a manager does: one alone, or several under one signature."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = encode(self._key.public_key().public_bytes_raw())

    def statement(self, number: int = 1, **fields: object) -> Statement:
        values = {
            "key": self.public,
            "id": make_id("r", 2.0, number),
            "enrolment": ENROLMENT,
            "launcher": LAUNCHER,
            "pilot": make_id("p", 1.0, 1),
            "experiment": "demo",
            "job": make_id("j", 1.0, number),
            "attempt": 1,
            "cpu_seconds": 432.0,
            "granted": 1.0,
            "leased_at": 1.0,
            "accepted_at": 2.0,
        }
        return Statement.model_validate(values | fields)

    def alone(self, statement: Statement) -> Receipt:
        signature = encode(self._key.sign(statement.canonical()))
        return Receipt(statement=statement, signature=signature)

    def together(self, statements: Sequence[Statement]) -> list[Receipt]:
        root, ways = tree([statement.canonical() for statement in statements])
        signature = encode(self._key.sign(root_statement(root)))
        return [
            Receipt(statement=statement, signature=signature, proof=encode(way))
            for statement, way in zip(statements, ways, strict=True)
        ]

    def file(self, count: int = 2, **fields: object) -> bytes:
        """Receipts number 1 to `count`."""
        return lines([self.alone(self.statement(n, **fields)) for n in range(1, count + 1)])


def lines(receipts: Sequence[Receipt]) -> bytes:
    return "".join(f"{receipt.model_dump_json()}\n" for receipt in receipts).encode()


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
