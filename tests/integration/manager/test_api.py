"""The users' API: rights, errors that help, events, health."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from copilot_agent.protocol.errors import Problem
from job_manager_adapter.api.application import API_ROUTES
from job_manager_adapter.api.route import Route
from job_manager_adapter.app import Manager
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.views import Role
from tests.integration.manager.pilot import FakePilot

JOB: dict[str, Any] = {"experiment": "demo", "command": ["/bin/true"]}
EXAMPLES = {
    "job": "j-00000000000000000000",
    "pilot": "p-00000000000000000000",
    "host": "h-00000000000000000000",
    "sha256": "0" * 64,
    "name": "mass.txt",
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def example_path(route: Route) -> str:
    return re.sub(r"{(\w+)[^}]*}", lambda match: EXAMPLES[match[1]], route.path)


async def status_of(
    http: aiohttp.ClientSession, route: Route, headers: dict[str, str]
) -> tuple[int, str]:
    async with http.request(
        route.method, example_path(route), headers=headers, data=b"{}" if route.body else None
    ) as reply:
        if reply.status < 400 or route.method == "HEAD":
            return reply.status, ""
        assert reply.content_type == "application/problem+json"
        return reply.status, Problem.model_validate_json(await reply.read()).code


async def test_nobody_gets_in_without_a_token(http: aiohttp.ClientSession) -> None:
    for route in API_ROUTES:
        for headers in ({}, bearer("forged"), bearer("x" * 5000), {"Authorization": "Basic eDp5"}):
            answer = await status_of(http, route, headers)
            code = "" if route.method == "HEAD" else "unauthenticated"
            assert answer == (401, code), f"{route.method} {route.path} with {headers}"


async def test_roles_are_kept(http: aiohttp.ClientSession, experiment: str, operator: str) -> None:
    for route in API_ROUTES:
        where = f"{route.method} {route.path}"
        status, _ = await status_of(http, route, bearer(experiment))
        assert (status == 403) == (Role.EXPERIMENT not in route.roles), where
        status, _ = await status_of(http, route, bearer(operator))
        assert status not in (401, 403, 500), where


async def submit(
    http: aiohttp.ClientSession, token: str, body: Any, path: str = "/api/v1/jobs"
) -> tuple[int, dict[str, Any]]:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with http.post(path, data=data, headers=bearer(token)) as reply:
        return reply.status, await reply.json(content_type=None)


async def test_another_experiments_job_is_not_there(
    http: aiohttp.ClientSession, experiment: str, stranger: str
) -> None:
    status, reply = await submit(http, experiment, {"jobs": [JOB]})
    assert status == 201
    job = reply["jobs"][0]
    for path in ("", "/explain", "/logs", "/outputs/mass.txt"):
        async with http.get(f"/api/v1/jobs/{job}{path}", headers=bearer(stranger)) as answer:
            assert answer.status == 404
    _, changed = await submit(http, stranger, {"jobs": [job]}, "/api/v1/jobs/cancel")
    assert changed["changed"] == []
    async with http.get("/api/v1/jobs?experiment=demo", headers=bearer(stranger)) as answer:
        assert answer.status == 403
    async with http.get("/api/v1/jobs", headers=bearer(stranger)) as answer:
        assert (await answer.json())["items"] == []
    status, _ = await submit(http, stranger, {"jobs": [JOB]})
    assert status == 403


HOSTILE: list[tuple[Any, str]] = [
    (b"{", "(body)"),
    (b"", "(body)"),
    (b"\xff\xfe", "(body)"),
    (b"[" * 100_000, "(body)"),
    ([], "(body)"),
    ({"jobs": []}, "jobs"),
    ({"jobs": [JOB], "extra": 1}, "extra"),
    ({"jobs": [JOB | {"comand": ["x"]}]}, "jobs[0].comand"),
    ({"jobs": [{"experiment": "demo"}]}, "jobs[0].command"),
    ({"jobs": [JOB | {"command": []}]}, "jobs[0].command"),
    ({"jobs": [JOB | {"command": ["a\x00b"]}]}, "jobs[0].command[0]"),
    ({"jobs": [JOB | {"experiment": "../x"}]}, "jobs[0].experiment"),
    ({"jobs": [JOB, JOB | {"experiment": "nobody"}]}, "jobs[1].experiment"),
    ({"jobs": [JOB | {"requirements": {"disk_mib": 1 << 60}}]}, "jobs[0].requirements.disk_mib"),
    ({"jobs": [JOB | {"requirements": {"cores": -1}}]}, "jobs[0].requirements.cores"),
    ({"jobs": [JOB | {"limits": {"run_seconds": 1e99}}]}, "jobs[0].limits.run_seconds"),
    ({"jobs": [JOB | {"outputs": [{"name": "../../etc/passwd"}]}]}, "jobs[0].outputs[0].name"),
    ({"jobs": [JOB | {"outputs": [{"name": "/etc/passwd"}]}]}, "jobs[0].outputs[0].name"),
    ({"jobs": [JOB | {"outputs": [{"name": "a\u202eb"}]}]}, "jobs[0].outputs[0].name"),
    ({"jobs": [JOB | {"outputs": [{"name": "a\nb"}]}]}, "jobs[0].outputs[0].name"),
    ({"jobs": [JOB | {"outputs": [{"name": "a" * 10_000}]}]}, "jobs[0].outputs[0].name"),
    ({"jobs": [JOB | {"name": "\x1b[31m"}]}, "jobs[0].name"),
    ({"jobs": [JOB | {"labels": {"a b": "c"}}]}, "jobs[0].labels"),
    ({"jobs": [JOB | {"environment": {"A=B": "c"}}]}, "jobs[0].environment"),
    (
        {"jobs": [JOB | {"inputs": [{"name": "in", "sha256": "0" * 64, "size": 1}]}]},
        "jobs[0].inputs[0].sha256",
    ),
    (
        {"jobs": [JOB | {"inputs": [{"name": "in", "sha256": "x", "size": 1}]}]},
        "jobs[0].inputs[0].sha256",
    ),
    (
        {"jobs": [JOB | {"inputs": [{"name": "i", "sha256": "0" * 64, "size": 1, "url": "file:///etc"}]}]},
        "jobs[0].inputs[0].url",
    ),
]  # fmt: skip


async def test_a_bad_submission_names_the_field_and_stores_nothing(
    http: aiohttp.ClientSession, operator: str
) -> None:
    for body, field in HOSTILE:
        for path in ("/api/v1/jobs", "/api/v1/jobs/validate"):
            status, problem = await submit(http, operator, body, path)
            assert status == 400, (field, problem)
            assert problem["remedy"]
            found = [item["field"] for item in problem["errors"]]
            assert any(name.startswith(field) for name in found), (field, found)
            assert all(item["message"].isprintable() for item in problem["errors"])
            assert len(json.dumps(problem)) < 20_000
    async with http.get("/api/v1/jobs/counts", headers=bearer(operator)) as reply:
        assert sum((await reply.json())["counts"].values()) == 0


async def test_a_body_over_the_bound(http: aiohttp.ClientSession, operator: str) -> None:
    status, problem = await submit(http, operator, b" " * (9 << 20))
    assert (status, problem["code"]) == (413, "too_large")


async def test_compressed_bodies_are_refused(http: aiohttp.ClientSession, operator: str) -> None:
    headers = bearer(operator) | {"Content-Encoding": "gzip"}
    async with http.post("/api/v1/jobs", data=b"x", headers=headers) as reply:
        assert reply.status == 400


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/jobs?limit=501", "limit"),
        ("/api/v1/jobs?limit=x", "limit"),
        ("/api/v1/jobs?state=dancing", "state"),
        ("/api/v1/jobs?label=nothing", "label[0]"),
        ("/api/v1/jobs?lable=a=b", "lable"),
        ("/api/v1/jobs/j-1", "job"),
        ("/api/v1/pilots?host=h-1", "host"),
    ],
)
async def test_a_bad_query_names_the_parameter(
    http: aiohttp.ClientSession, operator: str, path: str, field: str
) -> None:
    async with http.get(path, headers=bearer(operator)) as reply:
        assert reply.status == 400
        assert [item["field"] for item in (await reply.json())["errors"]] == [field]


async def test_no_such_address_and_no_such_method(http: aiohttp.ClientSession) -> None:
    for path in ("/", "/api/v1/nothing", "/pilot/v2/enrol", "/files/v1/../../etc/passwd"):
        async with http.get(path) as reply:
            assert reply.status == 404
            assert (await reply.json(content_type=None))["code"] == "not_found"
    async with http.delete("/api/v1/jobs") as reply:
        assert reply.status == 405
        assert "POST" in reply.headers["Allow"]
        assert (await reply.json(content_type=None))["remedy"]


async def test_our_own_mistakes_show_a_number_and_no_traceback(
    manager: Manager,
    http: aiohttp.ClientSession,
    operator: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(type(manager.services.credit), "summary", broken)
    async with http.get("/api/v1/credit", headers=bearer(operator)) as reply:
        assert reply.status == 500
        text = await reply.text()
    assert "secret" not in text
    number = re.search(r"under (\w+)", text)
    assert number is not None
    assert number[1] in caplog.text
    assert "a secret path" in caplog.text


async def test_the_same_key_gives_the_same_jobs(
    http: aiohttp.ClientSession, experiment: str
) -> None:
    body = {"jobs": [JOB], "idempotency_key": "k1"}
    first, again = await submit(http, experiment, body), await submit(http, experiment, body)
    assert (first[0], again[0]) == (201, 200)
    assert first[1]["jobs"] == again[1]["jobs"]
    status, problem = await submit(http, experiment, body | {"jobs": [JOB, JOB]})
    assert (status, problem["code"]) == (409, "idempotency_conflict")


async def test_a_revoked_token_is_refused(manager: Manager, http: aiohttp.ClientSession) -> None:
    view = await manager.services.tokens.create(Role.OPERATOR)
    async with http.get("/api/v1/whoami", headers=bearer(view.token or "")) as reply:
        assert (await reply.json())["experiments"] == ["demo", "other"]
    await manager.services.tokens.revoke(view.id)
    async with http.get("/api/v1/whoami", headers=bearer(view.token or "")) as reply:
        assert reply.status == 401


async def lines_of(reply: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in reply.content:
        yield line.decode().rstrip("\n")


async def test_events_arrive_and_go_on(
    http: aiohttp.ClientSession, experiment: str, stranger: str
) -> None:
    async def first_event(headers: dict[str, str]) -> dict[str, Any]:
        async with http.get("/api/v1/events", headers=headers) as reply:
            assert reply.content_type == "text/event-stream"
            connected.set()
            async for line in lines_of(reply):
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))  # type: ignore[no-any-return]
        raise AssertionError

    connected = asyncio.Event()
    mine = asyncio.create_task(first_event(bearer(experiment)))
    await connected.wait()
    connected.clear()
    foreign = asyncio.create_task(first_event(bearer(stranger)))
    await connected.wait()
    _, reply = await submit(http, experiment, {"jobs": [JOB]})
    event = await asyncio.wait_for(mine, 5)
    assert (event["kind"], event["subject"]) == ("job", reply["jobs"][0])
    _, reply = await submit(http, experiment, {"jobs": [JOB]})
    again = bearer(experiment) | {"Last-Event-ID": str(event["id"])}
    later = await asyncio.wait_for(first_event(again), 5)
    assert later["id"] > event["id"]
    assert not foreign.done()
    foreign.cancel()


async def test_metrics_can_be_read_while_the_store_is_away(
    manager: Manager, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(manager.store, "counts", away)
    async with http.get("/metrics") as reply:
        assert reply.status == 200
        assert "copilot_leases 0.0" in await reply.text()


async def test_health_and_metrics(
    manager: Manager, http: aiohttp.ClientSession, experiment: str
) -> None:
    await submit(http, experiment, {"jobs": [JOB]})
    [enrolment] = await manager.services.enrolments.create()
    pilot = FakePilot(http)
    await pilot.enrol(enrolment.secret or "")
    await pilot.poll()
    for path in ("/livez", "/readyz"):
        async with http.get(path) as reply:
            assert reply.status == 200
    async with http.get("/metrics") as reply:
        text = await reply.text()
    assert 'copilot_jobs{experiment="demo",state=' in text
    assert 'copilot_heartbeats_total{transport="poll"} 1.0' in text
    assert 'copilot_pilots{state="alive"} 1.0' in text
    assert "copilot_build_info" in text
    for name in (pilot.id, enrolment.id, "j-"):
        assert name not in text


async def test_not_ready_without_disk(manager: Manager, http: aiohttp.ClientSession) -> None:
    manager.files.floor_bytes = 1 << 60
    async with http.get("/readyz") as reply:
        assert reply.status == 503
        assert "disk" in await reply.text()


async def test_every_answer_is_protected(http: aiohttp.ClientSession) -> None:
    for path in ("/livez", "/api/openapi.json", "/nothing"):
        async with http.get(path) as reply:
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


async def test_the_stream_ends_with_its_token(
    manager: Manager, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job_manager_adapter.api.events.KEEP_ALIVE_SECONDS", 0.1)
    token = await manager.services.tokens.create(Role.EXPERIMENT, "demo")
    headers = {"Authorization": f"Bearer {token.token}"}
    async with http.get("/api/v1/events", headers=headers) as reply:
        await anext(aiter(reply.content))
        await manager.services.tokens.revoke(token.id)
        async with asyncio.timeout(10):
            await reply.content.read()
