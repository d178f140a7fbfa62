"""Reports that wait for their verdicts, in one file: a line for each, another when it is answered.

Making and removing a file for each report costs a file system much more than the line does.
"""

import errno
import json
import logging
import os
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from copilot_agent.core.events import Key
from copilot_agent.protocol.frames import Report

log = logging.getLogger(__name__)

COMPACT_BYTES = 1 << 20
"""The file is written anew when it is larger than this, and than twice what is kept."""


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._size = 0

    @cached_property
    def kept(self) -> dict[Key, str]:
        """Reports as JSON, oldest first; as found in the file at the first use."""
        return _read(self._path)

    def keep(self, key: Key, report: str) -> None:
        """Raises OSError, and then nothing is kept."""
        kept = self.kept
        self._append(_line(report))
        kept[key] = report

    def drop(self, key: Key) -> None:
        if self.kept.pop(key, None) is None:
            return
        try:
            if self.kept:
                self._append("\n" + json.dumps({"answered": key}))
            else:
                os.ftruncate(self._opened(), 0)
                self._size = 0
        except OSError as error:
            log.warning("%s: cannot note that %s was answered: %s", self._path, key, error)

    def close(self) -> None:
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def _opened(self) -> int:
        if self._file == -1:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._file).st_size
        return self._file

    def _append(self, line: str) -> None:
        """Compacts first: the line is not among what is kept yet."""
        if self._size > COMPACT_BYTES and self._size > 2 * sum(map(len, self.kept.values())):
            self._compact()
        data = line.encode()
        if os.write(self._opened(), data) < len(data):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(data)

    def _compact(self) -> None:
        new = self._path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text("".join(map(_line, self.kept.values())))
        self.close()
        new.replace(self._path)


def _line(report: str) -> str:
    """It begins with the line feed, so that nothing torn spoils what comes after."""
    return f'\n{{"report":{report}}}'


def _read(path: Path) -> dict[Key, str]:
    kept: dict[Key, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return kept
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            if "report" in entry:
                report = Report.model_validate(entry["report"])
                kept[Key(report.job, report.attempt)] = report.model_dump_json()
            else:
                kept.pop(Key(*entry["answered"]), None)
        except (ValueError, TypeError, KeyError, ValidationError):
            log.error("%s: line %d is no report; left out", path, number)
    return kept
