"""Moves one file in one direction in a process of its own, for `tests.bench.files`.

The order comes as JSON on stdin, seconds, CPU seconds and growth of memory go as JSON to stdout.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copilot_agent.payload.staging import StageIn, StageOut, StageOutError
from copilot_agent.protocol.frames import InputLink, OutputLink
from copilot_agent.protocol.job import JobSpec
from copilot_agent.transports.connections import open_session
from copilot_agent.transports.files import HttpFileMover
from job_manager_adapter.client import Client
from job_manager_adapter.client.files import hash_file
from tests.bench.processes import forget_peak, rss_bytes

Order = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A payload that has ended and left its outputs in `directory`."""

    spec: JobSpec
    directory: Path

    @property
    def stdout(self) -> Path:
        return self.directory / "stdout"

    @property
    def stderr(self) -> Path:
        return self.directory / "stderr"


async def client_upload(order: Order) -> None:
    """What `copilot submit` does with an input: hash it, then bring it."""
    path = Path(order["path"])
    async with Client(order["url"], order["token"]) as client:
        sha256, _ = await asyncio.to_thread(hash_file, path)
        await client.files.upload(path, sha256)


async def client_fetch(order: Order) -> None:
    async with Client(order["url"], order["token"]) as client:
        target = Path(order["path"])
        await client.files.fetch(order["job"], order["name"], order["sha256"], target)


async def stage_in(order: Order) -> None:
    """As the agent does it: into its cache, checked, then linked to."""
    root = Path(order["path"])
    link, spec = InputLink.model_validate(order["link"]), JobSpec.model_validate(order["spec"])
    async with open_session() as session:
        stage = StageIn(root / "cache", root / "work", HttpFileMover(session))
        await stage.prepare(order["job"], 1, spec, [link])


async def stage_out(order: Order) -> None:
    """As the agent does it: hash the output, then bring it; tried again after a cut."""
    link = OutputLink.model_validate(order["link"])
    ended = Ended(JobSpec.model_validate(order["spec"]), Path(order["path"]).parent)
    async with open_session() as session:
        stage = StageOut(HttpFileMover(session))
        for last in (False, True):
            try:
                await stage.upload(ended, [link])
                return
            except StageOutError as error:
                if last or not error.retryable:
                    raise


MOVES: dict[str, Callable[[Order], Coroutine[Any, Any, None]]] = {
    "client_upload": client_upload,
    "client_fetch": client_fetch,
    "stage_in": stage_in,
    "stage_out": stage_out,
}


def main() -> None:
    order = json.load(sys.stdin)
    gc.collect()
    before = rss_bytes(os.getpid())
    forget_peak(os.getpid())
    started, used = time.perf_counter(), time.process_time()
    asyncio.run(MOVES[order["move"]](order))
    found = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "growth_bytes": rss_bytes(os.getpid(), "VmHWM") - before,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
