"""Whole sets in few statements.

Python's sqlite3 gives the interpreter's lock up and takes it back for every row that it writes or
fetches, and each time it may have to wait for the event loop's thread. So rows go in by the dozen,
as bound VALUES, and come out as one JSON text.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

SIZES = (64, 16, 4, 1)
"""Rows of one statement. Only so many texts have to be prepared, and stay so."""
Row = Sequence[Any]
Statement = dict[int, str]
"""Its text by the number of rows."""


def statement(sql: str, columns: str) -> Statement:
    """`sql` may use a table `e` of rows with these columns."""
    names = columns.split()
    row = f"({', '.join('?' * len(names))})"
    return {
        size: f"WITH e ({', '.join(names)}) AS (VALUES {', '.join([row] * size)}) {sql}"
        for size in SIZES
    }


def write(connection: sqlite3.Connection, sql: Statement, rows: Sequence[Row]) -> None:
    for part in _parts(rows):
        connection.execute(sql[len(part)], list(chain.from_iterable(part)))


def read(connection: sqlite3.Connection, sql: Statement, rows: Sequence[Row]) -> list[Any]:
    """What a statement gave as JSON arrays."""
    found: list[Any] = []
    for part in _parts(rows):
        found += read_one(connection, sql[len(part)], list(chain.from_iterable(part)))
    return found


def read_one(connection: sqlite3.Connection, sql: str, values: Row) -> list[Any]:
    """What a query gave as one JSON array."""
    (text,) = connection.execute(sql, values).fetchone()
    found: list[Any] = json.loads(text)
    return found


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    for size in SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
