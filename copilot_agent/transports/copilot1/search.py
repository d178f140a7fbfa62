"""Whether a file is in this guest, which may be on a file system that does not answer."""

import asyncio
import threading
from pathlib import Path

LOOK_SECONDS = 10.0


class Search:
    """One at a time, in a thread that nobody has to wait for, not even at the agent's end."""

    def __init__(self, look_seconds: float = LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._found: asyncio.Future[bool] | None = None

    async def finds(self, path: str) -> bool:
        """False also for what cannot be looked for, or while an earlier search hangs."""
        if self._found is not None and not self._found.done():
            return False
        loop = asyncio.get_running_loop()
        found = self._found = loop.create_future()

        def look() -> None:
            there = _exists(Path(path))
            if not loop.is_closed():
                loop.call_soon_threadsafe(_set, found, there)

        threading.Thread(target=look, daemon=True).start()
        done, _ = await asyncio.wait([found], timeout=self._look_seconds)
        return bool(done) and found.result()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _set(found: "asyncio.Future[bool]", there: bool) -> None:
    if not found.done():
        found.set_result(there)
