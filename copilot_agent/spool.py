"""What an agent leaves on disk for the one that is started after it: reports, work in progress.

These need not outlive a power cut, because the pilot does not: after a boot it enrols as another.
Only receipts do.
"""

import errno
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from copilot_agent.core.events import Key
from copilot_agent.journal import Journal
from copilot_agent.protocol.frames import Held, Report
from copilot_agent.protocol.job import Phase
from copilot_agent.protocol.receipt import Receipt

log = logging.getLogger(__name__)


def write_private(path: Path, data: bytes) -> None:
    """Atomically and durably, readable by the owner alone. Raises OSError."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Spool:
    """`directory` belongs to this pilot alone."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._reports = Journal(directory / "reports.jsonl")
        self._unfinished = directory / "unfinished.json"
        self._receipts = directory / "receipts.jsonl"
        self._said: tuple[Key, ...] | None = None
        self._length = self._unfinished.stat().st_size if self._unfinished.exists() else 0
        """Of the list's file; a shorter list is filled up with spaces."""

    # ----- reports

    def keep(self, report: Report) -> None:
        """Raises OSError."""
        self._reports.keep(Key(report.job, report.attempt), report.model_dump_json())

    def drop(self, key: Key) -> None:
        self._reports.drop(key)

    def reports(self) -> tuple[Report, ...]:
        """Oldest first."""
        return tuple(map(Report.model_validate_json, self._reports.kept.values()))

    # ----- attempts in progress

    def keep_unfinished(self, keys: Iterable[Key]) -> None:
        """In place, by one write, as a rename costs a file system more. Raises OSError."""
        if (keys := tuple(keys)) == self._said:
            return
        text = json.dumps(keys).encode().ljust(self._length)
        handle = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(handle, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
        self._said, self._length = keys, len(text)

    def unfinished(self) -> tuple[Key, ...]:
        try:
            entries = json.loads(self._unfinished.read_bytes())
            held = [Held(job=job, attempt=n, phase=Phase.QUEUED) for job, n in entries]
        except FileNotFoundError:
            return ()
        except (ValueError, TypeError):
            log.error("%s is unreadable; its jobs will be lost", self._unfinished)
            return ()
        return tuple(Key(each.job, each.attempt) for each in held)

    # ----- receipts, where there is no launcher to keep them

    def keep_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Appends them as JSON lines. Raises OSError."""
        handle = os.open(self._receipts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as file:
            for receipt in receipts:
                file.write(receipt.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
