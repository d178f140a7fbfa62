"""Slow work in a thread, so that heartbeats go on; it ends soon when its waiter is cancelled."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Check = Callable[[], None]


class InterruptedWorkError(Exception):
    """Raised in the thread by its check."""


async def in_thread(work: Callable[[Check], T]) -> T:
    """`work` gets a check that it calls often; after a cancellation the check raises."""
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise InterruptedWorkError

    future = asyncio.get_running_loop().run_in_executor(None, work, check)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # looked at: it is the interruption
        raise
