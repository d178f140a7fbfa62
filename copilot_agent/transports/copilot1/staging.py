"""A job's files by Chirp: inputs before it, all that it leaves in one archive after it."""

import asyncio
import functools
import logging
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from copilot_agent.blocks import hash_file
from copilot_agent.payload.enclosure import MIB
from copilot_agent.payload.launch import TEMPORARY
from copilot_agent.payload.runner import PayloadPlan
from copilot_agent.payload.staging import OutputTooLargeError, StageInError, StageOutError
from copilot_agent.payload.threads import Check, in_thread
from copilot_agent.payload.tree import open_beneath, remove_tree
from copilot_agent.protocol.copilot1.job_commands import Job
from copilot_agent.protocol.copilot1.wait_status import Ending, status_of
from copilot_agent.protocol.frames import InputLink, OutputLink
from copilot_agent.protocol.job import JobSpec, Output
from copilot_agent.transports.base import Moved
from copilot_agent.transports.copilot1.chirp import ChirpError, connected
from copilot_agent.transports.copilot1.jobs import (
    STDERR,
    STDOUT,
    VALIDATED,
    WRAPPER,
    Terms,
    refusal,
    script,
)
from copilot_agent.transports.copilot1.packing import Packing

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 86_400.0
"""With a Chirp server that is away, or full."""
FIRST_PAUSE, MOST_PAUSE = 2.0, 300.0


class Desk(Protocol):
    """Knows the jobs by our own ids, and asks their managers."""

    def given(self, key: str) -> Job:
        """Raises StageInError for a job that is refused."""

    async def place(self, key: str, validate_exit_status: int | None) -> str:
        """The Chirp server that the outputs go to, when a manager names one.

        Raises StageOutError.
        """


class ChirpStageIn:
    def __init__(self, work: Path, desk: Desk, terms: Terms) -> None:
        self._work = work
        self._desk = desk
        self._terms = terms

    async def prepare(
        self,
        job: str,
        attempt: int,
        spec: JobSpec,
        _inputs: Sequence[InputLink],
        on_progress: Moved | None = None,
    ) -> Path:
        """The payload's directory, with inputs and script. Raises StageInError and OSError."""
        given = self._desk.given(job)
        if words := refusal(given, self._terms):
            raise StageInError(words, retryable=False)
        directory = self._work / f"{job}.{attempt}"
        if directory.exists():  # what an earlier agent left
            await asyncio.to_thread(remove_tree, directory)
        directory.mkdir(mode=0o700)
        try:
            await self._fetch(given, directory, spec.requirements.disk_mib * MIB, on_progress)
            (directory / WRAPPER).write_text(script(given, self._terms))
        except BaseException:
            await asyncio.to_thread(remove_tree, directory)
            raise
        return directory

    async def _fetch(
        self, job: Job, directory: Path, max_bytes: int, on_progress: Moved | None
    ) -> None:
        if not job.input_files:
            return
        try:
            async with connected(job.chirp_url) as chirp:
                for name in dict.fromkeys(job.input_files):
                    try:
                        max_bytes -= await chirp.get_file(
                            f"{job.input_dir}/{name}",
                            directory / name,
                            max_bytes=max_bytes,
                            moved=on_progress,
                        )
                    except ChirpError as error:
                        words = f"{job.input_dir}/{name}: {error.message}"
                        raise ChirpError(words, retryable=error.retryable) from error
        except ChirpError as error:
            raise StageInError(f"inputs: {error.message}", retryable=error.retryable) from error


class ChirpStageOut:
    def __init__(self, outgoing: Path, desk: Desk) -> None:
        """`outgoing` is a directory of the agent's own, for archives on their way."""
        self._outgoing = outgoing
        self._desk = desk

    async def upload(
        self, ended: PayloadPlan, _outputs: Sequence[OutputLink], on_progress: Moved | None = None
    ) -> tuple[Output, ...]:
        """All of the directory and both logs, however the payload ended. Raises StageOutError."""
        name = self._desk.given(ended.job).id
        archive = self._outgoing / f"{ended.job}.tgz"
        try:
            lacking = await in_thread(lambda check: _pack(ended, name, archive, check))
            await self._deliver(ended, archive, name, on_progress)
            if lacking:
                raise OutputTooLargeError(lacking, retryable=False)
            digest = await in_thread(functools.partial(hash_file, archive))
            size = archive.stat().st_size
            return (Output(name=f"{name}.tgz", sha256=digest.hexdigest(), size=size),)
        except ChirpError as error:
            raise StageOutError(f"outputs: {error.message}", retryable=error.retryable) from error
        finally:
            archive.unlink(missing_ok=True)

    async def _deliver(
        self, ended: PayloadPlan, archive: Path, name: str, on_progress: Moved | None
    ) -> None:
        """Results of hours are worth a day's patience: nobody else will make them again."""
        validated = _validate_exit_status(ended.directory)
        pause, until = FIRST_PAUSE, time.monotonic() + PATIENCE_SECONDS
        while True:
            url = await self._desk.place(ended.job, validated)
            try:
                return await put_archive(archive, name, url, on_progress)
            except ChirpError as error:
                if not error.retryable or time.monotonic() > until:
                    raise
                log.warning("outputs of %s: %s; trying again in %.0f s", name, error.message, pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, MOST_PAUSE)


async def put_archive(archive: Path, name: str, url: str, on_progress: Moved | None = None) -> None:
    """Where original managers look for it, whatever directory they named. Raises ChirpError."""
    with archive.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        async with connected(url) as chirp:
            await chirp.put_file(file, f"{name}/{name}.tgz", size=size, moved=on_progress)


def _pack(ended: PayloadPlan, name: str, archive: Path, check: Check) -> str:
    """What is lacking in it, in words."""
    packing = Packing(archive, ended.spec.requirements.disk_mib * MIB, check)
    try:
        packing.log(STDOUT, ended.stdout)
        packing.log(STDERR, ended.stderr)
        skip = frozenset({TEMPORARY, STDOUT, STDERR, f"{name}.tgz"})
        packing.tree(ended.directory, skip)
    finally:
        packing.close()
    return packing.lacking


def _validate_exit_status(directory: Path) -> int | None:
    """What the payload says of it, as a wait status."""
    try:
        handle = open_beneath(directory, VALIDATED)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        text = file.read(8).strip()
    if not text.isdigit() or int(text) > 255:
        return None
    return status_of(Ending(int(text)))
