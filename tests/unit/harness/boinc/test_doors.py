"""What a client meets at the tests' BOINC project, also while something is wrong there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.harness.boinc.project import BoincProject, boinc_project
from tests.harness.boinc.tiny_project import APP, PROGRAM, program, tiny_project


@pytest_asyncio.fixture
async def project(tmp_path: Path) -> AsyncIterator[BoincProject]:
    async with boinc_project(tiny_project(tmp_path / "project")) as started:
        yield started


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def fetch(session: aiohttp.ClientSession, project: BoincProject, name: str) -> bytes:
    async with session.get(f"{project.url}download/{name}") as response:
        response.raise_for_status()
        return await response.read()


async def test_the_page_names_the_scheduler(
    project: BoincProject, session: aiohttp.ClientSession
) -> None:
    async with session.get(project.url) as response:
        assert f"<scheduler>{project.url}cgi/sched</scheduler>" in await response.text()


async def test_downloads_come_as_they_are_or_as_the_fault_says(
    project: BoincProject, session: aiohttp.ClientSession
) -> None:
    assert await fetch(session, project, PROGRAM) == program()
    project.faults.download_bytes_per_second = 1e6
    assert await fetch(session, project, PROGRAM) == program()
    project.faults.corrupt.add(PROGRAM)
    assert await fetch(session, project, PROGRAM) != program()
    project.faults.missing.add(PROGRAM)
    with pytest.raises(aiohttp.ClientResponseError, match="404"):
        await fetch(session, project, PROGRAM)


async def test_nothing_but_staged_files_can_be_downloaded(
    project: BoincProject, session: aiohttp.ClientSession
) -> None:
    for name in ("..%2Fkeys%2Fcode_sign_private", "keys", "%2Fetc%2Fpasswd"):
        with pytest.raises(aiohttp.ClientResponseError, match="404"):
            await fetch(session, project, name)


async def test_an_upload_is_put_off_while_the_project_has_no_room(
    project: BoincProject, session: aiohttp.ClientSession
) -> None:
    asked = b"<data_server_request><get_file_size>out</get_file_size></data_server_request>"
    handler = f"{project.url}cgi/file_upload_handler"
    project.faults.refuse_uploads = True
    async with session.post(handler, data=asked) as response:
        assert "<status>1</status>" in await response.text()
    project.faults.refuse_uploads = False
    async with session.post(handler, data=asked) as response:
        assert "<status>0</status>" in await response.text()


async def test_a_project_that_was_off_comes_back_at_its_address_with_its_work(
    project: BoincProject, session: aiohttp.ClientSession
) -> None:
    (name,) = project.create_work("wu", {"in": b""}, app=APP)
    await project.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await session.get(project.url)
    await project.start()
    request = (
        f"<scheduler_request><authenticator>{project.authenticator}</authenticator>"
        "<work_req_seconds>1</work_req_seconds><platform_name>x86_64-pc-linux-gnu</platform_name>"
        "</scheduler_request>"
    )
    project.faults.scheduler_down = True
    async with session.post(f"{project.url}cgi/sched", data=request) as response:
        assert response.status == 503
    project.faults.scheduler_down = False
    async with session.post(f"{project.url}cgi/sched", data=request) as response:
        assert f"<name>{name}</name>" in await response.text()
    assert (await project.sent(name, seconds=1)).host == 1
