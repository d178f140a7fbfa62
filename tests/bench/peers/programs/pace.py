"""How every peer is driven: a warm-up, then jobs in batches while earlier ones run."""

import asyncio
import time
from collections.abc import Awaitable, Callable

BATCH = 100
WARM_UP = 300
AHEAD = 500
"""At most so many jobs wait, so that submitting and running overlap as they do in service."""
POLL_SECONDS = 0.05
SAMPLE_SECONDS = 0.5
"""Nothing happens so long before and after: whoever reads the lines samples CPU times."""

Submit = Callable[[int], Awaitable[None]]
Ended = Callable[[], Awaitable[int]]


async def drive(jobs: int, submit: Submit, ended: Ended) -> None:
    """Prints `begin`, and `end <jobs> <seconds>` when the last of them has ended.

    `ended` tells how many jobs ended since the start of the world, warm-up included.
    """
    await through(WARM_UP, 0, submit, ended)
    print("begin", flush=True)
    await asyncio.sleep(SAMPLE_SECONDS)
    started = time.perf_counter()
    await through(jobs, WARM_UP, submit, ended)
    print(f"end {jobs} {time.perf_counter() - started:.6f}", flush=True)
    await asyncio.sleep(SAMPLE_SECONDS)


async def through(jobs: int, before: int, submit: Submit, ended: Ended) -> None:
    submitted, done = 0, 0
    while done < jobs:
        while submitted < jobs and submitted - done < AHEAD:
            await submit(BATCH)
            submitted += BATCH
        await asyncio.sleep(POLL_SECONDS)
        done = await ended() - before
