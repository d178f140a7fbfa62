"""placeholder"""
from dataclasses import dataclass
from collections.abc import Iterator
from tests.simulation.ledger import Ledger

@dataclass(frozen=True)
class Violation:
    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"

def check(ledger: Ledger) -> Iterator[Violation]:
    if not ledger.quiet:
        yield Violation("not-quiet", "x")
