"""From a connection to a disk, both at work at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

BATCH = 1 << 20

Store = Callable[[Sequence[bytes]], None]
Errors = tuple[type[Exception], ...]


async def store_in_batches(
    body: AsyncIterator[bytes], store: Store, cuts: Errors = (ConnectionError, TimeoutError)
) -> None:
    """Hands the body to `store`, in a thread, in pieces of about `BATCH` bytes together.

    While one batch is stored the next comes in, so memory stays flat at two of them. What came
    before one of `cuts` is stored before that is raised: the sender needn't repeat it. `store` is
    never at work when this returns, not even after a cancellation.
    """
    busy: asyncio.Future[None] | None = None
    try:
        async for batch in _batches(body, cuts):
            if busy is not None:
                await asyncio.shield(busy)
            busy = asyncio.ensure_future(asyncio.to_thread(store, batch))
        if busy is not None:
            await asyncio.shield(busy)
    finally:
        if busy is not None:
            await asyncio.wait([busy])
            busy.exception()  # has been raised above, or something worse is


async def _batches(body: AsyncIterator[bytes], cuts: Errors) -> AsyncIterator[list[bytes]]:
    """Pieces as they came: joining them would only copy them once more."""
    batch: list[bytes] = []
    size = 0
    broken: Exception | None = None
    try:
        async for data in body:
            batch.append(data)
            size += len(data)
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    except cuts as error:
        broken = error
    if batch:
        yield batch
    if broken:
        raise broken
