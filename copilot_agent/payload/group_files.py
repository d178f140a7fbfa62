"""Reads and writes the files of control groups, which may go away at any moment."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


def write_file(path: Path, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def read_file(path: Path) -> str:
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


def number(path: Path, default: int = 0) -> int:
    text = read_file(path).strip()
    return int(text) if text.isdecimal() else default


def numbers(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in read_file(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def words(path: Path) -> set[str]:
    return set(read_file(path).split())


def members(path: Path) -> Iterator[int]:
    """Processes of a group and the groups below it, if a privileged payload made any."""
    for folder in [path, *subdirectories(path)]:
        yield from (int(line) for line in read_all(folder / "cgroup.procs").split())


def read_all(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def subdirectories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def remove_group(path: Path) -> bool:
    """Whether it is gone. A group whose last process has just died stays busy for an instant."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            log.warning("control group %s stays behind: %s", path, error)
        return False
    return True
