"""Files between a user and a manager whose connections are cut."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.client import files as files_module
from job_manager_adapter.client.files import Files
from job_manager_adapter.client.http import Http, UnreachableError

DATA = bytes(range(251)) * 20_000
SHA = hashlib.sha256(DATA).hexdigest()
CUT = 1_500_000


class Store:
    """A manager's file store that cuts the first `cuts` transfers after `CUT` bytes."""

    def __init__(self, cuts: int, content: bytes = DATA) -> None:
        self.cuts = cuts
        self.content = content
        self.here = b""
        self.sent: list[tuple[int, int]] = []
        """From where to where each download went."""

    async def get(self, request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0
        if start >= len(self.content):
            return web.Response(status=416)
        end = len(self.content) if not self.cuts else min(start + CUT, len(self.content))
        self.sent.append((start, end))
        reply = web.StreamResponse(status=206 if start else 200)
        reply.content_length = len(self.content) - start
        await reply.prepare(request)
        await reply.write(self.content[start:end])
        self._cut(request)
        return reply

    async def head(self, request: web.Request) -> web.StreamResponse:
        whole = "1" if len(self.here) == len(DATA) else "0"
        headers = {"Upload-Offset": str(len(self.here)), "Upload-Complete": whole}
        return web.Response(headers=headers)

    async def put(self, request: web.Request) -> web.StreamResponse:
        assert int(request.headers["Upload-Offset"]) == len(self.here)
        came = 0
        while data := await request.content.readany():
            came += len(data)
            self.here += data
            if self.cuts and came >= CUT:
                break
        self._cut(request)
        return web.Response(status=201)

    def _cut(self, request: web.Request) -> None:
        if self.cuts:
            self.cuts -= 1
            assert request.transport is not None
            request.transport.close()


@asynccontextmanager
async def served(store: Store) -> AsyncIterator[Files]:
    app = web.Application()
    app.router.add_get("/api/v1/jobs/j/outputs/x", store.get)
    app.router.add_head("/api/v1/files/{sha256}", store.head)
    app.router.add_put("/api/v1/files/{sha256}", store.put)
    async with TestServer(app) as server, Http(str(server.make_url("")), "token") as http:
        yield Files(http)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "backoff", lambda tried: 0.0)


async def test_a_download_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    store, target = Store(cuts=2), tmp_path / "x"
    async with served(store) as files:
        assert await files.fetch("j", "x", SHA, target) == target
    assert target.read_bytes() == DATA
    assert store.sent == [(0, CUT), (CUT, 2 * CUT), (2 * CUT, len(DATA))]
    assert list(tmp_path.iterdir()) == [target]


async def test_what_came_whole_before_is_not_sent_again(tmp_path: Path) -> None:
    store, target = Store(cuts=0), tmp_path / "x"
    (tmp_path / "x.part").write_bytes(DATA)
    async with served(store) as files:
        await files.fetch("j", "x", SHA, target)
    assert store.sent == []
    assert target.read_bytes() == DATA


async def test_a_download_that_is_always_cut_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    async with served(Store(cuts=1000, content=DATA * 2)) as files:
        with pytest.raises(UnreachableError, match="cut 5 times") as caught:
            await files.fetch("j", "x", SHA, tmp_path / "x")
    assert "goes on where it stopped" in caught.value.remedy


async def test_what_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    async with served(Store(cuts=0, content=DATA[:-1] + b"!")) as files:
        with pytest.raises(CopilotError, match="arrived damaged"):
            await files.fetch("j", "x", SHA, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


async def test_an_upload_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(DATA)
    store, told = Store(cuts=2), list[int]()
    async with served(store) as files:
        await files.upload(source, SHA, told.append)
    assert store.here == DATA
    assert told[-1] == len(DATA)


async def test_an_upload_that_is_always_cut_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(DATA)
    store = Store(cuts=1000)

    async def forget(request: web.Request) -> web.StreamResponse:
        store.here = b""
        return await Store.head(store, request)

    store.head = forget  # type: ignore[method-assign]
    async with served(store) as files:
        with pytest.raises(UnreachableError, match="cut 20 times") as caught:
            await files.upload(source, SHA)
    assert "try again later" in caught.value.remedy


async def test_a_file_that_changes_meanwhile_is_said(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(DATA)
    async with served(Store(cuts=1)) as files:

        def shorten(_: int) -> None:
            asyncio.get_running_loop().call_soon(source.write_bytes, DATA[:1000])

        with pytest.raises(CopilotError, match="changed meanwhile"):
            await files.upload(source, SHA, shorten)
