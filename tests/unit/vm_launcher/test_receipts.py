"""Receipts are kept once, durably, and add up."""

import tracemalloc
from pathlib import Path

import pytest

from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.receipt import Receipt, Statement
from vm_launcher.core.credit import CreditBook, Totals
from vm_launcher.receipts import ReceiptFile, ReceiptsFullError


def receipt(number: int, granted: float = 1.5) -> Receipt:
    statement = Statement(
        key="k" * 43,
        id=make_id("r", 1.0, number),
        enrolment=make_id("e", 1.0, 1),
        launcher="l" * 43,
        pilot=make_id("p", 1.0, 1),
        experiment="demo",
        job=make_id("j", 1.0, number),
        attempt=1,
        cpu_seconds=10.0,
        granted=granted,
        leased_at=1.0,
        accepted_at=2.0,
    )
    return Receipt(statement=statement, signature="s" * 86)


def test_what_was_appended_is_loaded(tmp_path: Path) -> None:
    file = ReceiptFile(tmp_path / "receipts.jsonl")
    assert list(file.load()) == []
    file.append([receipt(1), receipt(2)])
    file.append([receipt(3)])
    assert list(file.load()) == [receipt(1), receipt(2), receipt(3)]


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    file = ReceiptFile(path)
    file.append([receipt(1), receipt(2)])
    path.write_bytes(path.read_bytes()[:-30])
    file.append([receipt(3)])
    assert list(file.load()) == [receipt(1), receipt(3)]


def test_a_guest_cannot_fill_the_disk(tmp_path: Path) -> None:
    file = ReceiptFile(tmp_path / "receipts.jsonl", most_bytes=2000)
    with pytest.raises(ReceiptsFullError):
        for number in range(100):
            file.append([receipt(number)])
    assert (tmp_path / "receipts.jsonl").stat().st_size <= 2000


def test_many_receipts_cost_little_memory() -> None:
    tracemalloc.start()
    try:
        book = CreditBook(receipt(number) for number in range(2000))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert book.totals().receipts == 2000
    assert used < 2000 * 600


def test_a_receipt_counts_once() -> None:
    book = CreditBook([receipt(1)])
    assert book.add([receipt(1), receipt(2), receipt(2)]) == [receipt(2)]
    assert book.totals() == Totals(receipts=2, granted=3.0, cpu_seconds=20.0)


def test_what_could_not_be_kept_may_come_again() -> None:
    book = CreditBook()
    book.forget(book.add([receipt(1)]))
    assert book.add([receipt(1)]) == [receipt(1)]
