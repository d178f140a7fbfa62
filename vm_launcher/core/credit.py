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
    """Counts each receipt once, by its id; keeps no more of it, for a guest may invent many."""

    def __init__(self, kept: Iterable[Receipt] = ()) -> None:
        self._seen: dict[str, tuple[float, float]] = {}
        """By id: credit granted, CPU seconds."""
        self._granted = self._cpu_seconds = 0.0
        for receipt in kept:
            self.add([receipt])

    def add(self, receipts: Iterable[Receipt]) -> list[Receipt]:
        """Those that were not there before, in their order."""
        fresh = []
        for receipt in receipts:
            statement = receipt.statement
            if statement.id not in self._seen:
                self._seen[statement.id] = (statement.granted, statement.cpu_seconds)
                self._granted += statement.granted
                self._cpu_seconds += statement.cpu_seconds
                fresh.append(receipt)
        return fresh

    def forget(self, receipts: Iterable[Receipt]) -> None:
        """They could not be written down; the guest will bring them again."""
        for receipt in receipts:
            self._seen.pop(receipt.statement.id, None)
        self._granted = sum(granted for granted, _ in self._seen.values())
        self._cpu_seconds = sum(cpu_seconds for _, cpu_seconds in self._seen.values())

    def totals(self) -> Totals:
        return Totals(
            receipts=len(self._seen), granted=self._granted, cpu_seconds=self._cpu_seconds
        )
