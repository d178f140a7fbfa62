"""Receipts are kept once, durably, and add up."""

import contextlib
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.boinc_project.checking import MOST_BYTES, MOST_RECEIPTS, check_file
from tests.harness.receipts import ENROLMENT, ReceiptMaker
from vm_launcher import receipts
from vm_launcher.core.credit import CreditBook, Totals
from vm_launcher.receipts import ReceiptFile, ReceiptsFullError, is_signed


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


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """In each file; the rest is not written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    file, book = ReceiptFile(path), CreditBook()
    file.append(book.add([receipt(1)]))
    whole = path.read_bytes()
    more = book.add([receipt(number) for number in range(2, 6)])
    with room_for(3 * len(whole) + 100), pytest.raises(OSError, match="No space left"):
        file.append(more)
    assert path.read_bytes() == whole
    file.append(more)
    assert [one.statement.id for one in file.load()] == [
        receipt(n).statement.id for n in range(1, 6)
    ]


def test_what_is_handed_in_is_good_whatever_has_happened(tmp_path: Path) -> None:
    maker, path = ReceiptMaker(), tmp_path / "receipts.jsonl"
    one, two = maker.file(1), maker.file(2).splitlines(keepends=True)[1]
    path.write_bytes(one + two[:100] + b"\n" + one + b"\0\0\n" + two + two[:-7])
    ReceiptFile(path).hand_in(tmp_path / "upload")
    data = (tmp_path / "upload").read_bytes()
    assert data == one + two
    assert len(check_file(data, [maker.public], ENROLMENT)) == 2


def test_no_more_is_handed_in_than_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert receipts.MOST_UPLOADED <= MOST_RECEIPTS
    assert receipts.MOST_UPLOADED_BYTES <= MOST_BYTES
    file = ReceiptFile(tmp_path / "receipts.jsonl")
    file.append([receipt(number) for number in range(5)])
    monkeypatch.setattr(receipts, "MOST_UPLOADED", 3)
    file.hand_in(tmp_path / "upload")
    assert len((tmp_path / "upload").read_bytes().splitlines()) == 3
    monkeypatch.setattr(receipts, "MOST_UPLOADED_BYTES", 1000)
    file.hand_in(tmp_path / "upload")
    assert len((tmp_path / "upload").read_bytes().splitlines()) == 2


def test_without_receipts_an_empty_file_is_handed_in(tmp_path: Path) -> None:
    ReceiptFile(tmp_path / "receipts.jsonl").hand_in(tmp_path / "upload")
    assert (tmp_path / "upload").read_bytes() == b""


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


def test_receipts_that_no_known_manager_signed_are_not_taken() -> None:
    manager, former, stranger = ReceiptMaker(), ReceiptMaker(), ReceiptMaker()
    keys = (manager.public, former.public)
    good = manager.alone(manager.statement())
    assert is_signed(good, keys)
    assert all(is_signed(one, keys) for one in former.together([former.statement()] * 2))
    assert not is_signed(stranger.alone(stranger.statement()), keys)
    richer = good.statement.model_copy(update={"granted": 1000.0})
    assert not is_signed(good.model_copy(update={"statement": richer}), keys)
    assert not is_signed(stranger.alone(stranger.statement(key=manager.public)), keys)
    assert is_signed(stranger.alone(stranger.statement()), ()), (
        "without a key the guest is believed"
    )
