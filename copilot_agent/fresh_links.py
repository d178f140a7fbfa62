"""Moves files by links that may run out on the way: asks for fresh ones and goes on."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from copilot_agent.core.events import Key
from copilot_agent.protocol.frames import InputLink, Links, Offer, OutputLink
from copilot_agent.transports.base import FileMoveError, FileMover, Moved

ROUNDS = 5
PACE_BYTES, PACE_SECONDS = 1 << 19, 600.0
"""A download must bring so much, or its end, each time in so long: about 7 kbit/s."""


class FreshLinks:
    """A FileMover for all attempts; callers may hold on to the URLs of the offer."""

    def __init__(self, mover: FileMover, ask: Callable[[Key], None]) -> None:
        """`ask` is called when an attempt needs fresh links; they come by `use`."""
        self._mover = mover
        self._ask = ask
        self._owners: dict[str, tuple[Key, str]] = {}
        """From the offer's URL: the attempt, and the file with its direction."""
        self._newest: dict[tuple[Key, str], str] = {}
        self._arrivals: dict[Key, asyncio.Event] = {}

    def learn(self, key: Key, offer: Offer) -> None:
        for name, url in _named(offer.inputs, offer.outputs):
            self._owners[url] = (key, name)

    def use(self, links: Links) -> None:
        key = Key(links.job, links.attempt)
        for name, url in _named(links.inputs, links.outputs):
            self._newest[key, name] = url
        if arrival := self._arrivals.pop(key, None):
            arrival.set()

    def forget(self, key: Key) -> None:
        self._owners = {url: owner for url, owner in self._owners.items() if owner[0] != key}
        self._newest = {file: url for file, url in self._newest.items() if file[0] != key}
        self._arrivals.pop(key, None)

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        for _ in range(ROUNDS):
            try:
                return await self._paced(self._current(url), target, offset, max_bytes, progress)
            except FileMoveError as error:
                await self._refresh(url, error)
        raise FileMoveError("download: fresh links run out at once", retryable=False)

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        for _ in range(ROUNDS):
            try:
                return await self._mover.upload(
                    self._current(url), source, sha256=sha256, size=size, progress=progress
                )
            except FileMoveError as error:
                await self._refresh(url, error)
        raise FileMoveError("upload: fresh links run out at once", retryable=False)

    async def _paced(
        self, url: str, target: Path, offset: int, max_bytes: int, progress: Moved | None
    ) -> str:
        """A server that lets bytes drip would hold a slot for ever."""
        loop, came = asyncio.get_running_loop(), 0

        def moved(more: int) -> None:
            nonlocal came
            came += more
            if came >= PACE_BYTES:
                came = 0
                limit.reschedule(loop.time() + PACE_SECONDS)
            if progress is not None:
                progress(more)

        try:
            async with asyncio.timeout(PACE_SECONDS) as limit:
                return await self._mover.download(
                    url, target, offset=offset, max_bytes=max_bytes, progress=moved
                )
        except TimeoutError:
            text = f"download: less than {PACE_BYTES} bytes came in {PACE_SECONDS:g} s"
            raise FileMoveError(text, retryable=False) from None

    def _current(self, url: str) -> str:
        owner = self._owners.get(url)
        return url if owner is None else self._newest.get(owner, url)

    async def _refresh(self, url: str, error: FileMoveError) -> None:
        owner = self._owners.get(url)
        if owner is None or not error.link_expired:
            raise error
        key = owner[0]
        arrival = self._arrivals.setdefault(key, asyncio.Event())
        self._ask(key)
        await arrival.wait()


def _named(inputs: Iterable[InputLink], outputs: Iterable[OutputLink]) -> Iterable[tuple[str, str]]:
    for link in inputs:
        yield f"in {link.name}", link.url
    for target in outputs:
        yield f"out {target.name}", target.url
