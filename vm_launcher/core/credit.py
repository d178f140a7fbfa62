"""The launcher's book of credit: what the receipts that it keeps add up to."""

from collections.abc import Iterable
from dataclasses import dataclass

from copilot_agent.protocol.receipt import Receipt


@dataclass(frozen=True)
class Totals:
    receipts: int
    granted: float
    """In BOINC's cobblestones."""
    cpu_seconds: float


class CreditBook:
    """Counts each receipt once, by its id."""

    def __init__(self, kept: Iterable[Receipt] = ()) -> None:
        self._receipts: dict[str, Receipt] = {}
        self.add(kept)

    def add(self, receipts: Iterable[Receipt]) -> list[Receipt]:
        """Those that were not there before, in their order."""
        fresh = []
        for receipt in receipts:
            if receipt.statement.id not in self._receipts:
                self._receipts[receipt.statement.id] = receipt
                fresh.append(receipt)
        return fresh

    def forget(self, receipts: Iterable[Receipt]) -> None:
        """They could not be written down; the guest will bring them again."""
        for receipt in receipts:
            self._receipts.pop(receipt.statement.id, None)

    def totals(self) -> Totals:
        statements = [receipt.statement for receipt in self._receipts.values()]
        return Totals(
            receipts=len(statements),
            granted=sum(statement.granted for statement in statements),
            cpu_seconds=sum(statement.cpu_seconds for statement in statements),
        )
