"""The slot: the directory in which the client runs one task."""

import asyncio
import contextlib
import fcntl
import os
import re
from pathlib import Path

from copilot_agent.protocol.errors import ErrorCode
from vm_launcher.boinc.errors import InitDataError, SlotError, SlotLockedError
from vm_launcher.boinc.files import read_bounded, replace_file
from vm_launcher.boinc.init_data import FILE_NAME as INIT_DATA
from vm_launcher.boinc.init_data import InitData, read_init_data

LOCK = "boinc_lockfile"
FINISHED = "boinc_finish_called"
POSTPONED = "boinc_temporary_exit"

LOCK_TIMEOUT = 35.0
"""Seconds; a former occupant needs 30 to see that its client has gone."""

MOST_POSTPONED = 86400
MOST_REASON_BYTES = 240
"""The client reads lines of 255 bytes."""

_POLL = 0.1
_MOST_LINK_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9_+~-][A-Za-z0-9._+~-]{0,127}")
_LINK = re.compile(rb"\s*<soft_link>([^<\x00-\x1f]+)</soft_link>\s*")


class Slot:
    """Holds the lock from `lock` until `unlock` or the process's end.

    The lock is a POSIX one, as the official library takes it. So nothing else in this process
    may open and close the lock file: that would give the lock up.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._lock: int | None = None

    def init_data(self) -> InitData:
        return read_init_data(self.directory / INIT_DATA)

    async def lock(self, timeout: float = LOCK_TIMEOUT) -> None:
        """Wait for a former occupant to end; raises `SlotLockedError` after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not self._try_lock():
            if asyncio.get_running_loop().time() >= deadline:
                raise SlotLockedError(
                    f"another process has worked in the slot {self.directory} for {timeout:.0f} s",
                    remedy="end it, or restart the BOINC client",
                )
            await asyncio.sleep(_POLL)

    def unlock(self) -> None:
        if self._lock is not None:
            (self.directory / LOCK).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def resolve(self, name: str) -> Path:
        """Where the file with this logical name is, or is to be written.

        Raises `SlotError` for a name or a place outside slot and project directory.
        """
        if not _NAME.fullmatch(name):
            raise SlotError(f"{name[:80]!r} is no logical name of a file", remedy="correct it")
        try:
            place = self._follow(self.directory / name).resolve()
        except (OSError, RuntimeError):  # links in a circle
            raise _not_plain(name) from None
        if not any(place.is_relative_to(allowed) for allowed in self._allowed()):
            raise SlotError(
                f"the file {name} of the task lies outside the project's directory: {place}",
                remedy="reset the project in the BOINC manager",
            )
        if place.exists() and not place.is_file():
            raise _not_plain(name)
        return place

    def finish(self, code: int, message: str = "", notice: bool = False) -> None:
        """The task has ended for good, once the process exits with `code`, too."""
        if not 0 <= code <= 255:
            raise ValueError(f"no exit code: {code}")
        said = [_one_line(message), "notice" if notice else ""] if message else []
        self._write(FINISHED, [str(code), *said])

    def postpone(self, seconds: float, reason: str, notice: bool = False) -> None:
        """The client starts the task again after that time, once the process exits with 0.

        Without a reason the client would count a crash.
        """
        delay = int(min(max(seconds, 0), MOST_POSTPONED))
        said = [_one_line(reason) or "no reason given", *(["notice"] if notice else [])]
        self._write(POSTPONED, [str(delay), *said])

    def clear_endings(self) -> None:
        """What an earlier episode left would be taken for this one's."""
        for name in (FINISHED, POSTPONED):
            (self.directory / name).unlink(missing_ok=True)

    def _write(self, name: str, lines: list[str]) -> None:
        try:
            replace_file(self.directory / name, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise SlotError(
                f"the file {name} of the slot cannot be written: {error.strerror}",
                remedy="make room on the disk of the BOINC client",
                code=ErrorCode.NO_SPACE,
            ) from None

    def _try_lock(self) -> bool:
        if self._lock is not None:
            return True
        path = self.directory / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o664)
        except OSError as error:
            raise SlotError(
                f"the lock file {path} cannot be opened: {error.strerror}",
                remedy="restart the BOINC client",
            ) from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        if not _is_file_at(descriptor, path):  # its former owner deleted it in between
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _follow(self, path: Path) -> Path:
        """A symbolic link or a copy is itself; a small text file can stand for another file."""
        if path.is_symlink():
            return path
        with contextlib.suppress(OSError):
            start = read_bounded(path, _MOST_LINK_BYTES) or b""
            if match := _LINK.match(start):
                return self.directory / os.fsdecode(match[1])
        return path

    def _allowed(self) -> list[Path]:
        places = [self.directory.resolve()]
        with contextlib.suppress(InitDataError):
            if project := self.init_data().project_dir:
                places.append((self.directory / project).resolve())
        return places


def _not_plain(name: str) -> SlotError:
    """A pipe, say, for which one would wait for ever."""
    return SlotError(
        f"the file {name} of the task is no plain file",
        remedy="reset the project in the BOINC manager",
    )


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _one_line(text: str) -> str:
    """Plain text for the volunteer; the client does not escape it in its own XML."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    plain = " ".join(plain.translate({ord("<"): "(", ord(">"): ")", ord("&"): "+"}).split())
    return plain.encode()[:MOST_REASON_BYTES].decode(errors="ignore")
