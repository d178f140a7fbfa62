"""Reads and writes the files of control groups, which may go away at any moment."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


Name = Path | str
"""Plain strings where it is quick and often; there are two dozen files for each payload."""


def write_file(path: Name, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def read_file(path: Name) -> str:
    """Empty if the file is not there: controllers and kernels differ."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(handle, 1 << 16).decode()
    except OSError:  # the group went away meanwhile
        return ""
    finally:
        os.close(handle)


def number(path: Name, default: int = 0) -> int:
    text = read_file(path).strip()
    return int(text) if text.isdecimal() else default


def numbers(path: Name) -> dict[str, int]:
    pairs = (line.split() for line in read_file(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def words(path: Name) -> set[str]:
    return set(read_file(path).split())


def make_group(path: Name) -> None:
    """May be there already. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102 - see Name


def members(path: Name) -> Iterator[int]:
    """Processes of a group and the groups below it, if a privileged payload made any."""
    for folder in [path, *subdirectories(path)]:
        yield from (int(line) for line in read_all(f"{folder}/cgroup.procs").split())


def read_all(path: Name) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def subdirectories(path: Name) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def remove_group(path: Name) -> bool:
    """Whether it is gone. A group whose last process has just died stays busy for an instant."""
    try:
        os.rmdir(path)  # noqa: PTH106 - see Name
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            log.warning("control group %s stays behind: %s", path, error)
        return False
    return True
