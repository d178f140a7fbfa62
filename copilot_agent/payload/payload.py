"""One running payload: watches it until its last process is gone."""

import asyncio
import errno
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from copilot_agent.payload.enclosure import Enclosure, Measured
from copilot_agent.payload.logs import LogFile, printable
from copilot_agent.payload.tree import Scan, open_beneath
from copilot_agent.payload.watchdog import Exit, Limits, Stop, exceeded, next_look, verdict
from copilot_agent.protocol.job import FailureClass, Usage

log = logging.getLogger(__name__)

PROGRESS_FILE = ".progress"
_FIRST_LOOK_SECONDS = 0.1
_FASTEST_LOOK_SECONDS = 0.05
_SCAN_SECONDS = 0.01
_FINAL_SCAN_SECONDS = 0.1
_GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL for a payload that broke a limit."""
_BIG_LOG_BYTES = 4 << 20
_STUBBORN_SECONDS = 30.0
"""So long a process may resist SIGKILL, in an uninterruptible system call, before we go on."""
_MAX_PROGRESS_BYTES = 4096
_FRACTION = re.compile(r"^\s*(0(\.\d{0,18})?|1(\.0{0,18})?|\.\d{1,18})\s*$", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class PayloadEnd:
    """How it ended; no failure class: it succeeded."""

    exit_code: int | None
    signal: int | None
    failure_class: FailureClass | None
    message: str
    usage: Usage


class Payload:
    """Made by `Sandbox.start`; lives until `wait` returns."""

    def __init__(
        self,
        *,
        pid: int,
        directory: Path,
        limits: Limits,
        enclosure: Enclosure,
        logs: tuple[LogFile, LogFile],
        look_seconds: float,
        released: Callable[[], None],
    ) -> None:
        self.pid = pid
        self.started_at = time.time()
        self._started = time.monotonic()
        self._directory = directory
        self._limits = limits
        self._enclosure = enclosure
        self._logs = logs
        self._look_seconds = look_seconds
        self._released = released
        self._scan = Scan(directory)
        self._measured = Measured()
        self._stop: Stop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._wall_seconds = 0.0
        self._rusage_cpu = 0.0
        self._handle = os.pidfd_open(pid)
        self._loop.add_reader(self._handle, self._reap)
        for each in logs:
            each.attach(self._loop)
        self._looked = self._started
        self._next_look = self._loop.call_later(_FIRST_LOOK_SECONDS, self._look)
        self._end = self._loop.create_task(self._supervise(), name=f"payload-{pid}")

    async def wait(self) -> PayloadEnd:
        """Returns when no process is left and the logs are complete. May be called repeatedly."""
        return await asyncio.shield(self._end)

    async def kill(
        self, failure_class: FailureClass, message: str, *, grace_seconds: float = 5.0
    ) -> None:
        """Ends it: SIGTERM to all its processes, SIGKILL after the grace; returns at the end.

        If it was ending already, that end stands.
        """
        self._begin_stop(Stop(failure_class=failure_class, message=message), grace_seconds)
        await self.wait()

    def usage(self) -> Usage:
        """As of now."""
        if not self._exit.done():
            self._measure()
            self._wall_seconds = time.monotonic() - self._started
        return Usage(
            wall_seconds=self._wall_seconds,
            cpu_seconds=max(self._measured.cpu_seconds, self._rusage_cpu),
            peak_memory_bytes=self._measured.peak_memory_bytes,
            disk_bytes=self._scan.latest.bytes,
        )

    @property
    def memory_bytes(self) -> int:
        """Memory in use when it was last looked at."""
        return self._measured.memory_bytes

    def fraction(self) -> float | None:
        """How far it is, 0 to 1, if the last line of its file `.progress` says so."""
        try:
            handle = open_beneath(self._directory, PROGRESS_FILE)
        except OSError:
            return None
        try:
            size = os.fstat(handle).st_size
            raw = os.pread(handle, _MAX_PROGRESS_BYTES, max(0, size - _MAX_PROGRESS_BYTES))
        except OSError:
            return None
        finally:
            os.close(handle)
        lines = raw.decode("ascii", "replace").strip().splitlines()
        return float(lines[-1]) if lines and _FRACTION.match(lines[-1]) else None

    def log_tail(self, max_bytes: int = 4096) -> str:
        """The end of what it printed: stdout, then stderr; safe to show; empty after the end."""
        share = max_bytes // 2
        errors = printable(self._logs[1].tail(share))
        output = printable(self._logs[0].tail(max_bytes - min(share, len(errors.encode()))))
        return _last(output + errors, max_bytes)

    def _begin_stop(self, stop: Stop, grace_seconds: float) -> None:
        if self._stop is None and not self._exit.done():
            log.info("stopping payload %d: %s", self.pid, stop.message)
            self._stop = stop
            self._ending = self._loop.create_task(self._terminate(grace_seconds))

    async def _terminate(self, grace_seconds: float) -> None:
        self._enclosure.signal(signal.SIGTERM)
        self._enclosure.signal(signal.SIGCONT)
        await asyncio.wait([self._exit], timeout=grace_seconds)
        if not self._exit.done():
            await kill_all(self._enclosure)

    def _look(self) -> None:
        try:
            self._watch()
        except Exception as error:
            why = f"the watchdog failed: {error}"
            self._begin_stop(Stop(failure_class=FailureClass.HOST, message=why), 0.0)
            raise

    def _watch(self) -> None:
        """The watchdog's round."""
        self._measure()
        before, now = self._scan.latest, time.monotonic()
        disk = self._scan.advance(_SCAN_SECONDS)
        run_seconds = now - self._started
        stop = exceeded(self._limits, run_seconds=run_seconds, measured=self._measured, disk=disk)
        if stop is not None:
            self._begin_stop(stop, _GRACE_SECONDS)
        if self._stop is None:
            elapsed, self._looked = now - self._looked, now
            pause = next_look(
                self._limits,
                before=before,
                now=disk,
                elapsed=elapsed,
                slow=min(self._look_seconds, max(self._limits.run_seconds - run_seconds, 0.01)),
                fast=_FASTEST_LOOK_SECONDS,
            )
            self._next_look = self._loop.call_later(pause, self._look)

    def _last_look(self) -> Stop | None:
        """Whether what is still alive after a bad end says that a limit was the reason."""
        self._measure()
        return exceeded(
            self._limits, run_seconds=0.0, measured=self._measured, disk=self._scan.latest
        )

    def _measure(self, *, empty: bool = False) -> None:
        new, old = self._enclosure.measure(empty=empty), self._measured
        self._measured = replace(
            new,
            cpu_seconds=max(new.cpu_seconds, old.cpu_seconds),
            peak_memory_bytes=max(new.peak_memory_bytes, old.peak_memory_bytes),
        )

    def _reap(self) -> None:
        """The first process has ended."""
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        _, status, used = os.wait4(self.pid, 0)
        self._rusage_cpu = used.ru_utime + used.ru_stime
        self._enclosure.ended(used)
        code = os.waitstatus_to_exitcode(status)
        self._exit.set_result(Exit(exit_code=code) if code >= 0 else Exit(signal=-code))

    async def _supervise(self) -> PayloadEnd:
        end = await asyncio.shield(self._exit)
        self._next_look.cancel()
        self._wall_seconds = time.monotonic() - self._started
        if self._stop is None and end != Exit(exit_code=0):
            self._stop = self._last_look()
        if not await kill_all(self._enclosure):
            log.error("payload %d: some processes resist being killed", self.pid)
        if self._ending is not None:
            await self._ending
        self._measure(empty=True)
        disk = self._scan.finish(_FINAL_SCAN_SECONDS)
        free = free_bytes(self._directory.parent)  # its own may be gone: it may be the payload's
        await self._close_logs()
        await remove(self._enclosure)
        self._released()
        why = verdict(
            self._limits,
            end,
            stopped=self._stop,
            measured=self._measured,
            disk=disk,
            free_bytes=free,
        )
        return PayloadEnd(
            exit_code=end.exit_code,
            signal=end.signal,
            failure_class=why.failure_class if why else None,
            message=why.message if why else "",
            usage=self.usage(),
        )

    async def _close_logs(self) -> None:
        for each in self._logs:
            each.drain()
            try:
                if each.total > _BIG_LOG_BYTES:
                    await asyncio.to_thread(each.close)
                else:
                    each.close()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EIO):
                    raise
                log.warning("payload %d: a log is incomplete: %s", self.pid, error)


def free_bytes(directory: Path) -> int:
    """For those who are not root."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _last(text: str, max_bytes: int) -> str:
    return text.encode()[-max_bytes:].decode("utf-8", "ignore")


async def kill_all(enclosure: Enclosure) -> bool:
    """SIGKILL until nothing is left; False if something is there after a long while."""
    deadline = time.monotonic() + _STUBBORN_SECONDS
    pause = 0.001
    while not enclosure.kill():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True


async def remove(enclosure: Enclosure) -> None:
    deadline = time.monotonic() + 1.0
    while not enclosure.remove() and time.monotonic() < deadline:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.005)
