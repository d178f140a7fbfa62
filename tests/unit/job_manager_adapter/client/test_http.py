import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from job_manager_adapter.client.http import Http
from job_manager_adapter.views import JobCounts


@pytest.mark.parametrize(("status", "asked"), [(503, 20.0), (429, 2.0), (503, 0.0)])
async def test_a_busy_manager_is_left_alone_as_long_as_it_asks(
    status: int, asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [status, 200]
    headers = {"Retry-After": f"{asked:.0f}"} if asked else {}
    slept: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        code = answers.pop(0)
        return web.Response(status=code, headers=headers, text='{"counts": {}}')

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    app = web.Application()
    app.router.add_get("/counts", answer)
    async with TestServer(app) as server, Http(str(server.make_url("")), "token") as http:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        assert (await http.get("counts", JobCounts)).counts == {}
        monkeypatch.undo()
    (pause,) = slept
    assert max(asked, 0.25) <= pause <= max(1.5 * asked, 0.5)
