import asyncio
from pathlib import Path

import pytest

from copilot_agent import fresh_links
from copilot_agent.core.events import Key
from copilot_agent.fresh_links import FreshLinks
from copilot_agent.protocol.frames import Links, OutputLink
from copilot_agent.transports.base import FileMoveError, Moved
from tests.unit.copilot_agent.core.scenes import job_id, offer

KEY = Key(job_id(1), 1)


class Dripping:
    """A server that sends `pieces`, each after a while, and then no more."""

    def __init__(self, *pieces: int) -> None:
        self.pieces = pieces

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        assert progress is not None
        for piece in self.pieces:
            await asyncio.sleep(0.1)
            progress(piece)
        if self.pieces[-1] == 1:
            await asyncio.Event().wait()
        return "hash"

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        raise NotImplementedError


async def test_a_dripping_server_is_given_up_and_a_slow_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_links, "PACE_SECONDS", 0.6)
    slow = FreshLinks(Dripping(*[fresh_links.PACE_BYTES] * 8), lambda _: None)
    seen: list[int] = []
    found = await slow.download(
        "http://slow", tmp_path / "x", offset=0, max_bytes=1 << 30, progress=seen.append
    )
    assert (found, seen) == ("hash", [fresh_links.PACE_BYTES] * 8)
    drip = FreshLinks(Dripping(1, 1, 1), lambda _: None)
    with pytest.raises(FileMoveError, match="bytes came in 0") as caught:
        await drip.download("http://drip", tmp_path / "x", offset=0, max_bytes=9)
    assert not caught.value.retryable


class Mover:
    """Takes only the URLs that are good."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.tried: list[str] = []

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        self.check(url)
        return "hash"

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        self.check(url)

    def check(self, url: str) -> None:
        self.tried.append(url)
        if url not in self.good:
            raise FileMoveError("expired", retryable=True, link_expired=True)


async def upload(links: FreshLinks, url: str) -> None:
    await links.upload(url, Path("/dev/null"), sha256="0" * 64, size=0)


async def test_fresh_links_are_asked_for_and_used_from_then_on() -> None:
    mover, asked = Mover("http://new"), asyncio.Event()
    links = FreshLinks(mover, lambda key: asked.set())
    links.learn(KEY, offer(1))
    old = offer(1).outputs[2]
    move = asyncio.create_task(upload(links, old.url))
    await asked.wait()
    fresh = OutputLink(name=old.name, url="http://new", max_bytes=1)
    links.use(Links(job=KEY.job, attempt=1, outputs=(fresh,)))
    await move
    await upload(links, old.url)
    assert mover.tried == [old.url, "http://new", "http://new"]


async def test_a_link_that_is_not_the_managers_just_fails() -> None:
    links = FreshLinks(Mover(), lambda key: None)
    with pytest.raises(FileMoveError):
        await upload(links, "http://elsewhere/x")


async def test_links_that_never_work_end_the_transfer() -> None:
    def renew(key: Key) -> None:
        fresh = OutputLink(name="result.txt", url="http://bad", max_bytes=1)
        asyncio.get_running_loop().call_soon(
            links.use, Links(job=KEY.job, attempt=1, outputs=(fresh,))
        )

    links = FreshLinks(Mover(), renew)
    links.learn(KEY, offer(1))
    with pytest.raises(FileMoveError, match="run out at once"):
        await upload(links, offer(1).outputs[2].url)
