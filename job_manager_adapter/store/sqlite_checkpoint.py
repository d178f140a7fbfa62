"""Moves SQLite's log (-wal) into the database beside the writer.

A commit that finds the log too long has to empty it first. What this thread has moved already, the
commit need not, so it does not make those wait whose rows it carries.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable

from job_manager_adapter.store.base import StoreStats

SECONDS = 1.0
MOST_PAGES = 16_000
"""Of the log: 64 MiB; then a commit empties it."""


class Checkpoints:
    def __init__(self, connect: Callable[[], sqlite3.Connection], stats: StoreStats) -> None:
        self._connect = connect
        self._stats = stats
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            done = 0
            while not self._stop.wait(SECONDS):
                if self._stats.commits != done:
                    done = self._stats.commits
                    move(connection)


def move(connection: sqlite3.Connection) -> None:
    """As much as nobody reads any more; never waits for a lock."""
    with contextlib.suppress(sqlite3.Error):  # a full disk, which the writer tells
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
