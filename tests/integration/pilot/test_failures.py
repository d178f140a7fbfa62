"""Jobs that fail: the right class, the reason visible, the next job unharmed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from copilot_agent.protocol.job import FailureClass, JobState
from tests.integration.pilot.conftest import Setting

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTENT = b"events\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@asynccontextmanager
async def file_server(files: dict[str, bytes]) -> AsyncIterator[str]:
    """Serves what is in `files` at the moment; 404 for the rest."""

    async def answer(request: web.Request) -> web.Response:
        body = files.get(request.match_info["name"])
        return web.Response(status=404) if body is None else web.Response(body=body)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("script", "code", "signal"), [("exit 3", 3, None), ("kill -SEGV $$", None, 11)]
)
async def test_a_payloads_own_failure(
    shared: Setting, script: str, code: int | None, signal: int | None
) -> None:
    job = await shared.submit("/bin/sh", "-c", script, max_attempts=2)
    view = await shared.ended(job)
    assert view.state is JobState.FAILED
    assert view.failure_class is FailureClass.PAYLOAD
    assert [(a.exit_code, a.signal, a.charged) for a in view.attempts] == [(code, signal, True)] * 2
    assert str(code or signal) in view.message


async def test_a_missing_output_is_named(shared: Setting) -> None:
    outputs = [{"name": "there"}, {"name": "gone.root"}, {"name": "maybe", "optional": True}]
    job = await shared.submit("/bin/touch", "there", outputs=outputs, max_attempts=1)
    view = await shared.ended(job)
    assert view.failure_class is FailureClass.PAYLOAD
    assert "gone.root" in view.message
    assert "maybe" not in view.message


async def test_a_program_that_is_not_there(shared: Setting) -> None:
    job = await shared.submit("no-such-program", max_attempts=1)
    view = await shared.ended(job)
    assert view.failure_class is FailureClass.ENVIRONMENT
    assert "no-such-program" in view.message


async def test_a_missing_input_ends_as_dead_letter_and_retry_revives_it(shared: Setting) -> None:
    files: dict[str, bytes] = {}
    async with file_server(files) as url:
        inputs = [{"name": "in", "url": f"{url}/in", "sha256": SHA256, "size": len(CONTENT)}]
        job = await shared.submit("/bin/cat", "in", inputs=inputs, max_attempts=2)
        view = await shared.ended(job, 60)
        assert view.state is JobState.FAILED
        assert view.failure_class is FailureClass.STAGE_IN
        assert len(view.attempts) == 2
        assert "in" in view.message
        assert "404" in view.message
        files["in"] = CONTENT
        await shared.client.jobs.retry([job])
        assert (await shared.ended(job, 60)).state is JobState.SUCCEEDED


async def test_an_input_with_another_hash_fails_as_stage_in(shared: Setting) -> None:
    async with file_server({"in": b"tampered"}) as url:
        sha256 = hashlib.sha256(b"original").hexdigest()
        inputs = [{"name": "in", "url": f"{url}/in", "sha256": sha256, "size": 8}]
        job = await shared.submit("/bin/cat", "in", inputs=inputs, max_attempts=1)
        view = await shared.ended(job, 60)
    assert view.failure_class is FailureClass.STAGE_IN
    assert view.attempts[0].exit_code is None


async def test_run_time_is_a_limit_even_without_listening_to_sigterm(shared: Setting) -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    limits = {"run_seconds": 1}
    job = await shared.submit("/bin/sh", "-c", stubborn, limits=limits, max_attempts=1)
    view = await shared.ended(job)
    assert view.failure_class is FailureClass.PAYLOAD_LIMIT
    assert "1 s" in view.message
    following = await shared.submit("/bin/true")
    async with asyncio.timeout(5):
        assert (await shared.ended(following)).state is JobState.SUCCEEDED


async def test_a_gigabyte_of_output_is_cut_and_the_job_succeeds(shared: Setting) -> None:
    flood = "head -c 1000000000 /dev/zero | tr '\\0' 'x'; echo; echo the end"
    limits = {"log_mib": 1, "run_seconds": 120}
    job = await shared.submit("/bin/sh", "-c", flood, limits=limits)
    view = await shared.ended(job, 120)
    assert view.state is JobState.SUCCEEDED
    log = next(output for output in view.outputs if output.name == "stdout.log")
    assert log.size < 2 << 20
    assert (await shared.client.jobs.logs(job)).text.endswith("the end\n")
