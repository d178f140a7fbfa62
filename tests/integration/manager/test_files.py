"""Files over HTTP: signed links, resumed uploads, ranges, and what is refused."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import pytest
from yarl import URL

from copilot_agent.blocks import read_long
from copilot_agent.protocol.frames import Offer
from copilot_agent.protocol.job import JobSpec, Phase
from job_manager_adapter.api import body as body_module
from job_manager_adapter.api import download as download_module
from job_manager_adapter.app import Manager
from job_manager_adapter.client import Client
from job_manager_adapter.client.files import hash_file
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import Role, SubmitRequest
from tests.harness.programs import eventually
from tests.integration.manager.pilot import FakePilot, held, success, upload_headers

JOB = "j-00000000000000000000"
DATA = bytes(range(251)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()
SPEC = JobSpec.model_validate(
    {
        "experiment": "demo",
        "command": ["/bin/true"],
        "inputs": [{"name": "in.dat", "sha256": SHA, "size": len(DATA)}],
        "outputs": [{"name": "out/mass.txt"}],
        "limits": {"output_mib": 2},
    }
)


@pytest.fixture
async def pilot(manager: Manager, http: aiohttp.ClientSession) -> FakePilot:
    pilot = FakePilot(http)
    (enrolment,) = await manager.services.enrolments.create()
    await pilot.enrol(enrolment.secret or "")
    return pilot


@pytest.fixture
async def offer(manager: Manager, pilot: FakePilot) -> Offer:
    """An attempt that is open."""
    jobs = (SPEC.model_copy(update={"inputs": ()}),)
    operator = Principal("t", Role.OPERATOR)
    await manager.services.jobs.submit(operator, SubmitRequest(jobs=jobs))
    frame = await pilot.poll()
    while frame is None or not frame.offers:
        frame = await pilot.poll()
    return frame.offers[0]


@pytest.fixture
def output_link(offer: Offer) -> str:
    return next(link.url for link in offer.outputs if link.name == "out/mass.txt")


async def code_of(reply: aiohttp.ClientResponse) -> str:
    assert reply.content_type == "application/problem+json"
    problem = await reply.json()
    assert problem["remedy"]
    return str(problem["code"])


async def test_an_upload_goes_on_after_a_cut(
    manager: Manager, http: aiohttp.ClientSession, offer: Offer, output_link: str
) -> None:
    parts = urlsplit(output_link)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n"
    for name, value in upload_headers(DATA).items():
        head += f"{name}: {value}\r\n"
    writer.write(head.encode() + b"\r\n" + DATA[:700_000])
    await writer.drain()
    writer.transport.abort()
    del reader

    async def goes_on() -> bool:
        async with http.head(output_link) as reply:
            assert (reply.status, reply.headers["Upload-Complete"]) == (200, "0")
            offset = int(reply.headers["Upload-Offset"])
        assert offset <= 700_000
        if not offset:  # the manager has not yet seen the end of the other
            return False
        headers = upload_headers(DATA, offset)
        async with http.put(output_link, data=DATA[offset:], headers=headers) as reply:
            return reply.status == 201

    await eventually(goes_on, what="the rest of the upload")
    async with http.head(output_link) as reply:
        assert reply.headers["Upload-Complete"] == "1"
    output, path = manager.files.output(offer.job, 1, "out/mass.txt")
    assert output.sha256 == SHA
    assert path.read_bytes() == DATA


async def test_a_body_that_stops_is_ended_and_what_came_is_kept(
    http: aiohttp.ClientSession, output_link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "SILENCE_SECONDS", 0.2)

    async def half() -> AsyncIterator[bytes]:
        yield DATA[:5000]
        await asyncio.Event().wait()

    async with http.put(output_link, data=half(), headers=upload_headers(DATA)) as reply:
        assert (reply.status, await code_of(reply)) == (503, "unavailable")
    async with http.head(output_link) as reply:
        assert reply.headers["Upload-Offset"] == "5000"


async def test_parts_and_repeats(http: aiohttp.ClientSession, output_link: str) -> None:
    async with http.put(output_link, data=DATA[:1000], headers=upload_headers(DATA)) as reply:
        assert reply.status == 204
        assert reply.headers["Upload-Offset"] == "1000"
    async with http.put(output_link, data=DATA, headers=upload_headers(DATA)) as reply:
        assert reply.status == 409
        assert reply.headers["Upload-Offset"] == "1000"
        assert await code_of(reply) == "offset_mismatch"
    headers = upload_headers(DATA, 1000)
    async with http.put(output_link, data=DATA[1000:], headers=headers) as reply:
        assert reply.status == 201
    async with http.put(output_link, data=DATA, headers=upload_headers(DATA)) as reply:
        assert reply.status == 201
    other = b"other"
    async with http.put(output_link, data=other, headers=upload_headers(other)) as reply:
        assert (reply.status, await code_of(reply)) == (409, "conflict")


async def test_nothing_is_taken_for_an_attempt_that_has_ended(
    manager: Manager, http: aiohttp.ClientSession, pilot: FakePilot, offer: Offer, output_link: str
) -> None:
    async with http.put(output_link, data=DATA[:1000], headers=upload_headers(DATA)) as reply:
        assert reply.status == 204
    report = success(offer, ()).model_copy(update={"outcome": "failed"})
    frame = await pilot.poll(holding=held(offer, Phase.REPORTING), reports=(report,))
    while frame is None or not frame.verdicts:
        frame = await pilot.poll()
    headers = upload_headers(DATA, 1000)
    async with http.put(output_link, data=DATA[1000:], headers=headers) as reply:
        assert (reply.status, await code_of(reply)) == (403, "link_invalid")
    assert manager.files.stored_outputs(offer.job, 1) == []


async def test_a_wrong_hash_starts_over(http: aiohttp.ClientSession, output_link: str) -> None:
    wrong = upload_headers(DATA) | {"Upload-Sha256": "0" * 64}
    async with http.put(output_link, data=DATA, headers=wrong) as reply:
        assert (reply.status, await code_of(reply)) == (422, "hash_mismatch")
    async with http.head(output_link) as reply:
        assert reply.headers["Upload-Offset"] == "0"


async def test_a_file_over_the_links_bound(http: aiohttp.ClientSession, output_link: str) -> None:
    data = bytes(2 * (1 << 20) + 1)
    async with http.put(output_link, data=io.BytesIO(data), headers=upload_headers(data)) as reply:
        assert (reply.status, await code_of(reply)) == (413, "too_large")


@pytest.mark.parametrize("name", ["Upload-Offset", "Upload-Length", "Upload-Sha256"])
@pytest.mark.parametrize("value", ["-1", "x" * 64, "9" * 60])
async def test_absurd_headers_are_named(
    http: aiohttp.ClientSession, output_link: str, name: str, value: str
) -> None:
    headers = upload_headers(b"x") | {name: value}
    async with http.put(output_link, data=b"x", headers=headers) as reply:
        assert reply.status == 400
        assert (await reply.json())["errors"][0]["field"] == name


async def test_forged_expired_and_foreign_links(
    manager: Manager, http: aiohttp.ClientSession, offer: Offer, output_link: str
) -> None:
    expired = manager.files.outputs(offer.job, 1, SPEC, time.time() - 7200)[0].url
    parts = urlsplit(output_link)
    query = dict(parse_qsl(parts.query))
    larger = parts._replace(query=urlencode(query | {"m": "999999999"})).geturl()
    elsewhere = parts._replace(path=parts.path.replace("/1/", "/2/")).geturl()
    unsigned = parts._replace(query="").geturl()
    for link, code in [
        (expired, "link_expired"),
        (larger, "link_invalid"),
        (elsewhere, "link_invalid"),
        (unsigned, "link_invalid"),
    ]:
        async with http.put(link, data=b"x", headers=upload_headers(b"x")) as reply:
            assert (reply.status, await code_of(reply)) == (403, code)
    as_input = f"/files/v1/inputs/{SHA}?{parts.query}"
    async with http.get(as_input) as reply:
        assert (reply.status, await code_of(reply)) == (403, "link_invalid")
    async with http.delete(output_link) as reply:
        assert reply.status == 405
    assert manager.files.stored_outputs(offer.job, 1) == []


async def test_inputs_by_link_with_ranges(
    manager: Manager, http: aiohttp.ClientSession, experiment: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.dat"
    path.write_bytes(DATA)
    async with Client(manager.url, experiment) as client:
        await client.files.upload(path, hash_file(path)[0])
    [link] = manager.files.inputs(JOB, SPEC, time.time())
    async with http.get(link.url) as reply:
        assert await reply.read() == DATA
        assert reply.headers["ETag"] == f'"{SHA}"'
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
    async with http.get(link.url, headers={"Range": "bytes=1000-"}) as reply:
        assert reply.status == 206
        assert await reply.read() == DATA[1000:]
    async with http.head(link.url) as reply:
        assert reply.headers["Content-Length"] == str(len(DATA))


async def test_a_long_input_gets_a_place_in_the_page_cache_when_asked_for_again(
    manager: Manager,
    http: aiohttp.ClientSession,
    experiment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, past_the_cache = tmp_path / "in.dat", list[Path]()
    path.write_bytes(DATA)
    async with Client(manager.url, experiment) as client:
        await client.files.upload(path, hash_file(path)[0])

    def seen(path: Path, offset: int, count: int) -> AsyncGenerator[memoryview, None]:
        past_the_cache.append(path)
        return read_long(path, offset, count)

    monkeypatch.setattr(download_module, "LONG", 0)
    monkeypatch.setattr(download_module, "read_long", seen)
    [link] = manager.files.inputs(JOB, SPEC, time.time())
    async with http.head(link.url) as reply:
        assert reply.status == 200
    for _ in range(3):
        async with http.get(link.url) as reply:
            assert await reply.read() == DATA
    assert len(past_the_cache) == 1


async def test_users_files(
    http: aiohttp.ClientSession, experiment: str, stranger: str, operator: str
) -> None:
    url, mine = f"/api/v1/files/{SHA}", {"Authorization": f"Bearer {experiment}"}
    async with http.head(url, headers=mine) as reply:
        assert reply.status == 404
    async with http.put(url, data=DATA, headers=mine | upload_headers(DATA)) as reply:
        assert reply.status == 201
    async with http.head(url, headers=mine) as reply:
        assert reply.headers["Upload-Complete"] == "1"
    async with http.get(url, headers={"Authorization": f"Bearer {stranger}"}) as reply:
        assert reply.status == 404
    async with http.get(url, headers={"Authorization": f"Bearer {operator}"}) as reply:
        assert await reply.read() == DATA


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%00", "a" * 10_00, "x%0d%0ay"])
async def test_hostile_names_in_paths(
    http: aiohttp.ClientSession, operator: str, name: str
) -> None:
    headers = {"Authorization": f"Bearer {operator}"}
    for url in (f"/api/v1/jobs/{JOB}/outputs/{name}", f"/api/v1/files/{name}"):
        async with http.get(URL(url, encoded=True), headers=headers) as reply:
            assert reply.status in (400, 404)
            assert reply.content_type == "application/problem+json"
