"""Runs each bench in a process of its own and leaves nothing of it behind."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.bench import results
from tests.bench.frame import Bench
from tests.bench.processes import descendants

RUN = f"{time.time():.0f}-{os.getpid()}"
PROGRAM = ("-m", "tests.bench.alone")
PATIENCE_SECONDS = 30.0
"""For a bench to stop what it started."""
QUIET_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


async def one(bench: Bench, out: Path, quick: bool) -> bool:
    """Measure, and put the figures into results.json. False if it failed: said on the terminal."""
    out.mkdir(parents=True, exist_ok=True)
    into, began = out / f".{bench.name}.json", time.monotonic()
    into.unlink(missing_ok=True)
    code = await _in_process(bench, out, into, quick)
    took = f"{time.monotonic() - began:.0f} s"
    if code == 0:
        file = out / results.FILE
        results.write(file, results.merge(results.read(file), results.read(into), [bench.name]))
    into.unlink(missing_ok=True)
    print(f"  {'done' if code == 0 else f'failed with exit code {code}'} after {took}", flush=True)
    return code == 0


async def _in_process(bench: Bench, out: Path, into: Path, quick: bool) -> int:
    others = set(descendants(os.getpid()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *PROGRAM, bench.name, "--run", RUN),
        *("--out", str(out), "--into", str(into), *(["--quick"] if quick else [])),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(bench.seconds + PATIENCE_SECONDS):
            await _show(process.stdout)
            return await process.wait()
    except TimeoutError:
        return -signal.SIGKILL
    finally:
        await asyncio.shield(_end(process, others))


async def _show(output: asyncio.StreamReader) -> None:
    """Pass its lines on; say that it still works when it says nothing."""
    began = time.monotonic()
    while True:
        try:
            line = await asyncio.wait_for(output.readline(), QUIET_SECONDS)
        except TimeoutError:
            line = b"...\n"
        if not line:
            return
        text = line.decode(errors="replace").rstrip()
        print(f"  {time.monotonic() - began:4.0f} s  {text}", flush=True)


async def _end(process: asyncio.subprocess.Process, others: set[int]) -> None:
    """Let it stop by itself, then kill, by pid, what is left of it and not one of `others`."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    for pid in set(descendants(os.getpid())) - others:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            print(f"  killed process {pid}, which was left over", flush=True)
    await process.wait()


def adopt_orphans() -> None:
    """What a killed bench leaves behind becomes a child of this process, which can then end it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
