"""What is under way: tasks that nobody waits for, and work that is gathered into one task."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
Work = Callable[[list[T]], Coroutine[Any, Any, None]]
MOST = 32
"""Items of one call; so a store may answer the first ones while it writes the others."""


class Tasks:
    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._gathered: dict[Work[Any], list[Any]] = {}

    def __bool__(self) -> bool:
        """Whether anything is under way."""
        return bool(self._running or self._gathered)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def gather(self, work: Work[T], item: T) -> None:
        """Items for the same work in one turn of the event loop become one call of it, or a few.

        So what many pilots say at the same time is few tasks and few calls of the store.
        """
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._spawn_gathered)
        self._gathered.setdefault(work, []).append(item)

    def _spawn_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for start in range(0, max(map(len, gathered.values())), MOST):
            for work, items in gathered.items():
                if part := items[start : start + MOST]:
                    self.spawn(work(part))

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("an operation failed: %s", error, exc_info=error)

    async def join(self) -> None:
        """Waits for those that run now."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.sleep(0)
