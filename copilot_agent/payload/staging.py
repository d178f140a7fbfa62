"""Moves files in before a payload and out after it."""

import asyncio
import hashlib
import os
import posixpath
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from copilot_agent.blocks import new_block
from copilot_agent.payload.archive import Caps
from copilot_agent.payload.cache import Cache, Sleep, StageInError
from copilot_agent.payload.enclosure import MIB
from copilot_agent.payload.launch import TEMPORARY
from copilot_agent.payload.threads import Check, in_thread
from copilot_agent.payload.tree import open_beneath, remove_bare, remove_tree
from copilot_agent.protocol.frames import InputLink, OutputLink
from copilot_agent.protocol.job import STDERR, STDOUT, FailureClass, JobSpec, Output
from copilot_agent.transports.base import FileMoveError, FileMover, Moved

__all__ = [
    "MissingOutputError",
    "OutputTooLargeError",
    "StageIn",
    "StageInError",
    "StageOut",
    "StageOutError",
    "clean_up",
]

CACHE_BYTES = 4 << 30
_DOWNLOADS = 4
"""At once, for one attempt."""
_EMPTY = hashlib.sha256().hexdigest()


class StageIn:
    def __init__(
        self,
        cache: Path,
        work: Path,
        mover: FileMover,
        *,
        uid: int | None = None,
        gid: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`uid` and `gid` as in `Sandbox`; the cache is readable for that group only."""
        privileged = uid is not None and os.geteuid() == 0
        self._cache = Cache(
            cache,
            mover,
            gid=(uid if gid is None else gid) if privileged else None,
            max_bytes=cache_bytes,
            sleep=sleep,
        )
        self._work = work
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o711 if privileged else 0o700)

    async def prepare(
        self,
        job: str,
        attempt: int,
        spec: JobSpec,
        inputs: Sequence[InputLink],
        on_progress: Moved | None = None,
    ) -> Path:
        """Makes the payload's directory with links to its inputs. Raises StageInError, OSError.

        `on_progress` is told how many more bytes have come. After an error or a cancellation
        nothing is left but what the cache has already.
        """
        directory = self._work / f"{job}.{attempt}"
        if directory.exists():  # what an earlier agent left
            await asyncio.to_thread(remove_tree, directory)
        directory.mkdir(mode=0o700)
        try:
            await self._fill(directory, spec, inputs, on_progress)
        except BaseException:
            await asyncio.to_thread(remove_tree, directory)
            raise
        return directory

    async def _fill(
        self,
        directory: Path,
        spec: JobSpec,
        inputs: Sequence[InputLink],
        on_progress: Moved | None,
    ) -> None:
        if not inputs:
            return
        places = asyncio.Semaphore(_DOWNLOADS)
        caps = Caps(bytes=spec.requirements.disk_mib * MIB)

        async def place(link: InputLink) -> None:
            async with places:
                if link.unpack:
                    source = await self._cache.tree(link, directory, caps, on_progress)
                else:
                    source = await self._cache.file(link, directory, on_progress)
            target = directory / link.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.absolute())

        try:
            async with asyncio.TaskGroup() as group:
                for link in inputs:
                    group.create_task(place(link))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        _make_executable(directory, spec.command[0])


def _make_executable(directory: Path, program: str) -> None:
    """Lets the payload run the input that is its program."""
    if "/" not in program or program.startswith("/"):
        return
    path = Path(posixpath.normpath(directory / program))
    with suppress(OSError):  # a name that is too long; the start says that it is not there
        if path.is_relative_to(directory) and path.is_file():
            path.chmod(0o555)


class StageOutError(Exception):
    """An output cannot be delivered; `failure_class` says whose fault that is."""

    failure_class = FailureClass.STAGE_OUT

    def __init__(self, message: str, *, retryable: bool, link_expired: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.link_expired = link_expired


class MissingOutputError(StageOutError):
    """The payload did not make all the files that it declared; all of them are named."""

    failure_class = FailureClass.PAYLOAD


class OutputTooLargeError(StageOutError):
    """The outputs are larger than the job allows."""

    failure_class = FailureClass.PAYLOAD_LIMIT


class Ended(Protocol):
    """What stage-out needs of a PayloadPlan."""

    @property
    def spec(self) -> JobSpec: ...
    @property
    def directory(self) -> Path: ...
    @property
    def stdout(self) -> Path: ...
    @property
    def stderr(self) -> Path: ...


class StageOut:
    def __init__(self, mover: FileMover) -> None:
        self._mover = mover

    async def upload(
        self, ended: Ended, outputs: Sequence[OutputLink], on_progress: Moved | None = None
    ) -> tuple[Output, ...]:
        """Uploads those of the named outputs that are there, after the payload's end.

        Nothing is uploaded unless all that must be there is, and small enough. Raises
        StageOutError.
        """
        found = _open_outputs(ended, outputs)
        try:
            _check_sizes(ended.spec, found)
            return tuple([await self._send(link, file, on_progress) for link, file in found])
        finally:
            for _, handle in found:
                os.close(handle)

    async def _send(self, link: OutputLink, handle: int, on_progress: Moved | None) -> Output:
        """An empty file is not uploaded: its report says all about it."""
        size = os.fstat(handle).st_size
        if size == 0:
            return Output(name=link.name, sha256=_EMPTY, size=0)
        digest = await in_thread(lambda check: _hash(handle, size, check))
        try:
            await self._mover.upload(
                link.url,
                Path(f"/proc/self/fd/{handle}"),  # the file that was looked at, whatever its name
                sha256=digest,
                size=size,
                progress=on_progress,
            )
        except FileMoveError as error:
            raise StageOutError(
                f"{link.name}: {error.message}",
                retryable=error.retryable,
                link_expired=error.link_expired,
            ) from error
        return Output(name=link.name, sha256=digest, size=size)


def _open_outputs(ended: Ended, outputs: Sequence[OutputLink]) -> list[tuple[OutputLink, int]]:
    """Opens every output; raises MissingOutputError with all that are not there."""
    found: list[tuple[OutputLink, int]] = []
    missing = []
    try:
        for link in outputs:
            try:
                found.append((link, _open_output(ended, link.name)))
            except FileNotFoundError:
                if not link.optional:
                    missing.append(f"{link.name} was not made")
            except OSError as error:
                missing.append(f"{link.name} {error.strerror or error}")
        if missing:
            message = f"declared outputs are missing: {'; '.join(missing)}"
            raise MissingOutputError(message[:2000], retryable=False)
    except BaseException:
        for _, handle in found:
            os.close(handle)
        raise
    return found


def _open_output(ended: Ended, name: str) -> int:
    logs = {STDOUT: ended.stdout, STDERR: ended.stderr}
    if path := logs.get(name):
        return _open_log(path)
    handle = open_beneath(ended.directory, name)
    if os.fstat(handle).st_uid != ended.directory.stat().st_uid:
        os.close(handle)  # a hard link to what belongs to somebody else
        raise OSError("is not the payload's own file")
    return handle


def _open_log(path: Path) -> int:
    """The agent's own file; there is none where nothing was printed."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _check_sizes(spec: JobSpec, found: list[tuple[OutputLink, int]]) -> None:
    total = 0
    for link, handle in found:
        size = os.fstat(handle).st_size
        if size > link.max_bytes:
            message = f"{link.name}: {size} bytes, more than {link.max_bytes} are not taken"
            raise OutputTooLargeError(message, retryable=False)
        if link.name not in (STDOUT, STDERR):
            total += size
    if total > spec.limits.output_mib * MIB:
        message = (
            f"the outputs have {total} bytes, more than {spec.limits.output_mib} MiB; "
            "raise limits.output_mib"
        )
        raise OutputTooLargeError(message, retryable=False)


def _hash(handle: int, size: int, check: Check) -> str:
    digest, block, position = hashlib.sha256(), new_block(), 0
    while position < size and (count := os.preadv(handle, [block], position)):
        check()
        digest.update(block[:count])
        position += count
    return digest.hexdigest()


async def clean_up(directory: Path) -> None:
    """Removes an attempt's directory, in a thread if there is anything in it."""
    if not remove_bare(directory, TEMPORARY):
        await asyncio.to_thread(remove_tree, directory)
