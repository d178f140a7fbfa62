"""What happens at the project, for tests to wait on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_REMEMBERED = 30


class Board:
    """Wakes all who wait whenever something is announced."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._said: deque[str] = deque(maxlen=_REMEMBERED)

    def announce(self, what: str) -> None:
        self._said.append(what)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, look: Callable[[], T | None], what: str, seconds: float) -> T:
        """What `look` finds, as soon as it is not None; fails saying `what` after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while (found := look()) is None:
                    await self._next()
                return found
        except TimeoutError:
            history = "\n  ".join(self._said)
            raise AssertionError(f"not within {seconds} s: {what}; before:\n  {history}") from None

    async def _next(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future
