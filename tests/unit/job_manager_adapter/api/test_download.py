"""Sending files: the same bytes, whether the system's page cache keeps them or not."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from copilot_agent import blocks
from job_manager_adapter.api import download
from job_manager_adapter.api.download import send_file

DATA = os.urandom(3 * blocks.BLOCK + 5000)
Client = TestClient[web.Request, web.Application]


@pytest.fixture(params=["past the page cache", "short", "wanted again"])
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    monkeypatch.setattr(download, "LONG", 1 << 30 if request.param == "short" else 0)

    async def get(_: web.Request) -> web.FileResponse:
        return send_file(path, "0" * 64, "x", wanted_again=request.param == "wanted again")

    app = web.Application()
    app.router.add_get("/x", get)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_whole_file_comes(client: Client) -> None:
    async with client.get("/x") as reply:
        assert await reply.read() == DATA
        assert reply.content_length == len(DATA)


@pytest.mark.parametrize("start", [1, 4096, 2 * blocks.BLOCK + 17, len(DATA) - 1])
async def test_the_rest_of_a_file_comes(client: Client, start: int) -> None:
    async with client.get("/x", headers={"Range": f"bytes={start}-"}) as reply:
        assert reply.status == 206
        assert await reply.read() == DATA[start:]


async def test_a_range_behind_the_end_is_refused(client: Client) -> None:
    async with client.get("/x", headers={"Range": f"bytes={len(DATA)}-"}) as reply:
        assert reply.status == 416


async def test_the_connection_goes_on_after_a_file(client: Client) -> None:
    for _ in range(3):
        async with client.get("/x") as reply:
            assert await reply.read() == DATA


async def test_more_at_once_than_have_a_place_are_served_all_the_same(client: Client) -> None:
    replies = [await client.get("/x") for _ in range(12)]
    for reply in reversed(replies):
        assert await reply.read() == DATA
