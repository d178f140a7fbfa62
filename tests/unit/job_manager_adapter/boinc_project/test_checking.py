"""What an uploaded file is worth, and what is refused."""

import tracemalloc

import pytest

from copilot_agent.protocol.ids import make_id
from job_manager_adapter.boinc_project.checking import (
    MOST_LINE,
    MOST_RECEIPTS,
    Counted,
    RefusedError,
    check_file,
    total,
)
from job_manager_adapter.boinc_project.names import parse_upload, workunit_name
from tests.harness.receipts import ENROLMENT, ReceiptMaker, lines

MANAGER = ReceiptMaker()
OTHER = ReceiptMaker()


def check(data: bytes, *keys: str) -> float:
    return total(check_file(data, keys or (MANAGER.public,), ENROLMENT))


def test_good_receipts_are_worth_their_sum() -> None:
    assert check(MANAGER.file(3, granted=1.5)) == 4.5


def test_receipts_under_one_signature_count_each() -> None:
    assert check(lines(MANAGER.together([MANAGER.statement(n) for n in range(1, 6)]))) == 5.0


def test_after_a_change_of_keys_both_are_good() -> None:
    second = lines([OTHER.alone(OTHER.statement(9))])
    assert check(MANAGER.file(1) + second, OTHER.public, MANAGER.public) == 2.0


def test_the_last_line_needs_no_end() -> None:
    assert check(MANAGER.file(2).rstrip(b"\n")) == 2.0


def test_more_credit_than_was_signed_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"line 2: .*signature"):
        check(MANAGER.file(1) + MANAGER.file(1).replace(b'"granted":1.0', b'"granted":9.0'))


def test_a_forger_who_names_the_managers_key_is_refused() -> None:
    forged = lines([OTHER.alone(OTHER.statement(key=MANAGER.public))])
    with pytest.raises(RefusedError, match=r"line 1: .*signature"):
        check(forged)


def test_another_managers_receipt_is_refused() -> None:
    with pytest.raises(RefusedError, match="another manager"):
        check(OTHER.file(1))


def test_a_repeated_receipt_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"line 2: .*twice"):
        check(MANAGER.file(1) * 2)


def test_another_workunits_receipt_is_refused() -> None:
    foreign = MANAGER.file(1, enrolment=make_id("e", 1.0, 18))
    with pytest.raises(RefusedError, match=f"issued {ENROLMENT}"):
        check(foreign)


def test_a_proof_of_another_tree_is_refused() -> None:
    one, two = MANAGER.together([MANAGER.statement(1), MANAGER.statement(2)])
    swapped = one.model_copy(update={"statement": MANAGER.statement(3)})
    with pytest.raises(RefusedError, match=r"line 2: .*signature"):
        check(lines([two, swapped]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no receipt"),
        (b"\n\n", "no receipt"),
        (b"{}\n", "statement"),
        (b"\xff\xfe\n", "no receipt"),
        (b"[" * 5000 + b"\n", "no receipt"),
        (b"x" * (MOST_LINE + 1), "longer than"),
        (b"{}\n" * (MOST_RECEIPTS + 1), "lines"),
        (MANAGER.file(1) + b"\n" + MANAGER.file(1), "line 2"),
        (MANAGER.file(1).replace(b'"granted":1.0', b'"granted":NaN'), "line 1"),
        (MANAGER.file(1).replace(b'"granted":1.0', b'"granted":1e400'), "granted"),
        (MANAGER.file(1).replace(b'"granted":1.0', b'"granted":-1.0'), "granted"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_receipts_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        check(data)


def test_more_than_a_result_may_earn_is_refused() -> None:
    with pytest.raises(RefusedError, match="may earn"):
        total([Counted("r-1", 60.0), Counted("r-2", 60.0)], most=100.0)


@pytest.mark.parametrize("name", ["{wu}_0_r123456_0", "{wu}_0_0"])
def test_a_files_name_tells_workunit_and_result(name: str) -> None:
    workunit = workunit_name(ENROLMENT)
    upload = parse_upload(name.format(wu=workunit))
    assert upload is not None
    assert (upload.result, upload.enrolment) == (f"{workunit}_0", ENROLMENT)


@pytest.mark.parametrize(
    "name",
    ["{wu}_0", "{wu}", "x{wu}_0_0", "{wu}_0_0\n", "{wu}_0_0.gone", "copilot_e-1_0_0", "{wu}_٣_0"],
)
def test_other_names_tell_nothing(name: str) -> None:
    assert parse_upload(name.format(wu=workunit_name(ENROLMENT))) is None


def test_a_file_of_empty_lines_costs_little_memory() -> None:
    data = b"x" + b"\n" * (4 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="lines"):
            check(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data)
