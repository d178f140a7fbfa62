"""Which receipts were counted for which result: a small SQLite file, shared by all validators.

A receipt counts for the first result that brings it, for ever. Checking that result again changes
nothing.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from job_manager_adapter.boinc_project.checking import Counted, RefusedError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
    id TEXT PRIMARY KEY,
    result TEXT NOT NULL,
    granted REAL NOT NULL
) STRICT, WITHOUT ROWID
"""
_BY_RESULT = "CREATE INDEX IF NOT EXISTS receipts_result ON receipts (result)"


class Ledger:
    """All methods raise sqlite3.Error: for the caller that is trouble of the server's."""

    def __init__(self, path: Path, *, patience: float = 10.0) -> None:
        """`patience`: seconds to wait for another validator."""
        self._path = path
        self._patience = patience

    def book(self, result: str, counted: Sequence[Counted]) -> None:
        """All of them or none. Raises RefusedError for one that another result has brought."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for receipt in counted:
                _book(connection, result, receipt)
            connection.execute("COMMIT")

    def booked(self, result: str) -> float | None:
        """What the result's receipts are worth; None for one that was never found good."""
        with self._open() as connection:
            rows = connection.execute("SELECT granted FROM receipts WHERE result = ?", (result,))
            amounts = [float(row[0]) for row in rows]
        return math.fsum(amounts) if amounts else None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """What is not committed at its end is rolled back. Errors name the file."""
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(_SCHEMA)
                connection.execute(_BY_RESULT)
                yield connection
        except sqlite3.Error as error:
            raise type(error)(f"the ledger {self._path}: {error}") from error


def _book(connection: sqlite3.Connection, result: str, receipt: Counted) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", (receipt.id, result, receipt.granted)
    )
    (holder,) = connection.execute(
        "SELECT result FROM receipts WHERE id = ?", (receipt.id,)
    ).fetchone()
    if holder != result:
        raise RefusedError(f"receipt {receipt.id} was already counted for {holder}")
