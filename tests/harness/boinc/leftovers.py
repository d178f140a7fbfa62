"""What a client and its tasks have on the computer: processes, locks, files."""

from __future__ import annotations

import fnmatch
import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.harness.programs import alive

_OF_THE_CLIENT = (
    *("account_*.xml", "acct_*", "all_projects_list.xml", "cc_config.xml", "client_state*.xml"),
    *("coproc_info.xml", "daily_xfer_history.xml", "get_current_version.xml", "global_prefs*.xml"),
    *("gui_rpc_auth.cfg", "job_log_*.txt", "lockfile", "lookup_*.xml", "master_*.xml"),
    *("notices/*", "sched_reply_*.xml", "sched_request_*.xml", "statistics_*.xml"),
    *("stdoutdae*", "stderrdae*", "stdoutgui*", "time_stats_log", "client_opaque.txt", "temp_*"),
    *("get_project_config.xml", "current_version.xml"),
)
_OF_A_PROJECT = ("trickle_up_*", "app_info.xml", "stat_icon", "*.sent")
_NAME = re.compile("<name>([^<]+)</name>")


@dataclass(frozen=True)
class Process:
    pid: int
    command: str


@dataclass(frozen=True)
class Leftovers:
    """Empty, and so false, when nothing of any task is left."""

    processes: tuple[Process, ...]
    locks: tuple[Path, ...]
    files: tuple[Path, ...]
    """Outside the slots, and not known to the client."""

    def __bool__(self) -> bool:
        return bool(self.processes or self.locks or self.files)


def processes_of(root: Path) -> Iterator[Process]:
    """Living ones that were started below `root`: by their place, words, program or environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        with suppress(OSError):
            if pid != os.getpid() and _touches(entry, root) and alive(pid):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield Process(pid, words.decode(errors="replace").strip())


def _touches(process: Path, root: Path) -> bool:
    for link in ("cwd", "exe"):
        with suppress(OSError):
            if (process / link).readlink().is_relative_to(root):
                return True
    for text in ("cmdline", "environ"):
        with suppress(OSError):
            if f"{root}/".encode() in (process / text).read_bytes():
                return True
    return False


def kill_all(processes: Iterable[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def strange_files(data: Path, scratch: Iterable[Path]) -> Iterator[Path]:
    """Outside the slots and unknown to the client, which has written down what it knows."""
    descriptions = (data / "client_state.xml", *data.glob("projects/*/app_info.xml"))
    texts = (path.read_text(errors="replace") for path in descriptions if path.exists())
    known = {name for text in texts for name in _NAME.findall(text)}
    for path in _files(data):
        place = path.relative_to(data)
        if place.parts[0] == "slots":
            continue
        if place.parts[0] == "projects":
            if place.name not in known and not _like(place.name, _OF_A_PROJECT):
                yield path
        elif not _like(str(place), _OF_THE_CLIENT):
            yield path
    for directory in scratch:
        yield from _files(directory)


def _like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _files(directory: Path) -> list[Path]:
    # a task may remove directories meanwhile, over which `rglob` would fall
    return sorted(Path(top, name) for top, _, names in os.walk(directory) for name in names)
