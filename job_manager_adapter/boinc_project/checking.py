"""What an uploaded file of receipts is worth. Decisions only."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from copilot_agent.protocol.receipt import Receipt, Statement
from copilot_agent.protocol.words import dotted, in_words
from job_manager_adapter.receipts import ReceiptError, verify_receipt

MOST_BYTES = 32 << 20
MOST_RECEIPTS = 20_000
"""Two weeks of one-minute jobs; a line has 600 to 1000 bytes."""
MOST_LINE = 8 << 10
MOST_CREDIT = 1e6
"""Of one result: some ten core-years. More than that is a mistake somewhere."""


class RefusedError(Exception):
    """The file is not good; the text says where and why."""


@dataclass(frozen=True)
class Counted:
    """One receipt that is good."""

    id: str
    granted: float


def check_file(data: bytes, keys: Sequence[str], enrolment: str) -> list[Counted]:
    """The receipts of one uploaded file. Raises RefusedError for the first that is not good.

    `keys` are the public keys of the manager, present and former. A file without any receipt is
    refused too: a task that has earned none does not end with exit status 0.
    """
    counted: dict[str, Counted] = {}
    for number, line in enumerate(_lines(data), start=1):
        try:
            statement = _good(line, keys, enrolment)
        except (RefusedError, ReceiptError) as error:
            raise RefusedError(f"line {number}: {error}") from error
        if statement.id in counted:
            raise RefusedError(f"line {number}: receipt {statement.id} comes twice")
        counted[statement.id] = Counted(statement.id, statement.granted)
    return list(counted.values())


def total(counted: Sequence[Counted], most: float = MOST_CREDIT) -> float:
    """In BOINC's unit. Raises RefusedError for more than `most`."""
    amount = math.fsum(receipt.granted for receipt in counted)
    if not 0 <= amount <= most:
        raise RefusedError(f"{amount!r} credits are more than the {most:g} that a result may earn")
    return amount


def _lines(data: bytes) -> Iterator[bytes]:
    if not data.strip():
        raise RefusedError("there is no receipt in it")
    if len(data) > MOST_BYTES:
        raise RefusedError(f"more than {MOST_BYTES} bytes")
    data = data.removesuffix(b"\n")
    if data.count(b"\n") >= MOST_RECEIPTS:
        raise RefusedError(f"more than {MOST_RECEIPTS} lines")
    yield from data.split(b"\n")


def _good(line: bytes, keys: Sequence[str], enrolment: str) -> Statement:
    if len(line) > MOST_LINE:
        raise RefusedError(f"longer than {MOST_LINE} bytes")
    try:
        receipt = Receipt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = dotted(first["loc"]) or "the line"
        raise RefusedError(f"no receipt; {where}: {in_words(first)}") from error
    statement = receipt.statement
    if statement.key not in keys:
        raise RefusedError(
            f"receipt {statement.id} is of another manager, whose key is {statement.key}; known"
            f" here (manager_keys): {', '.join(keys)}"
        )
    verify_receipt(receipt, statement.key)
    if statement.enrolment != enrolment:
        raise RefusedError(
            f"receipt {statement.id} was earned with {statement.enrolment},"
            f" but the workunit was issued {enrolment}"
        )
    return statement
