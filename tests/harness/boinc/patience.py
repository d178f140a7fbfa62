"""Waiting for what has to be asked for again and again, as the client has no events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


async def until(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float) -> T:
    """The first answer that is neither None nor False; fails saying `what` after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await ask()
        if answer is not None and answer is not False:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)
