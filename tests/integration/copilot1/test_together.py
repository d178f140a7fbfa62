"""Our manager and our agent, both speaking the original's words, with its monitor and Heartbeat."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from copilot_agent.protocol.job import JobState
from deploy.demo.processes import program
from tests.harness.chirp import ChirpServer
from tests.harness.copilot1_server import CONFERENCE, DOMAIN, Copilot1Server
from tests.harness.originals import OriginalComponent, OriginalMonitor, playing
from tests.harness.programs import TOOLS, eventually
from tests.integration.copilot1.settings import SECONDS, Setting, running

ROOM = f"together@{CONFERENCE}"
HURRY = "60"
"""The agent's timers: a minute is a second."""


@pytest.fixture
async def monitor(server: Copilot1Server) -> AsyncIterator[OriginalMonitor]:
    double = OriginalMonitor(await server.login("mon", "mon"))
    async with playing(double):
        yield double


@pytest.fixture
async def setting(
    server: Copilot1Server, chirp: ChirpServer, monitor: OriginalMonitor, tmp_path: Path
) -> AsyncIterator[Setting]:
    more = f'room = "{ROOM}"\nmonitor = "mon@{DOMAIN}"\n'
    async with running(server, chirp, tmp_path, more, account="together") as made:
        yield made


async def password_file(setting: Setting, name: str) -> tuple[str, Path]:
    jid = await setting.server.account(name)
    path = setting.root / f"{name}.password"
    path.touch(mode=0o600)
    path.write_text(setting.server.passwords[jid])
    return jid, path


@pytest.fixture
async def agent(setting: Setting) -> AsyncIterator[None]:
    """`copilot-agent copilot1` as a process."""
    jid, password = await password_file(setting, "modern")
    argv = (
        *(str(TOOLS / "copilot-agent"), "copilot1", "--jid", jid, "--password-file", str(password)),
        *("--managers", f"together@{DOMAIN}", "--state", str(setting.root / "agent")),
        *("--server", f"127.0.0.1:{setting.server.c2s_port}", "--room", f"{ROOM}/modern"),
        *("--ca", str(setting.server.authority.file), "--hurry", HURRY),
        *("--cores", "1", "--memory", "512", "--disk", "512"),
    )
    async with program("agent", argv, setting.root / "agent.log"):
        yield


async def ask(setting: Setting, *words: str) -> tuple[int, str]:
    """`copilot copilot1`."""
    jid, password = await password_file(setting, "operator")
    process = await asyncio.create_subprocess_exec(
        *(str(TOOLS / "copilot"), "copilot1", *words, "--jid", jid, "--room", ROOM),
        *("--password-file", str(password), "--ca", str(setting.server.authority.file)),
        *("--server", f"127.0.0.1:{setting.server.c2s_port}"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(setting.root), "LC_ALL": "C.UTF-8"},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_jobs_go_from_our_manager_to_our_agent_one_after_the_other(
    setting: Setting, agent: None, monitor: OriginalMonitor
) -> None:
    began = asyncio.get_running_loop().time()
    outputs = [{"name": "answer"}]
    jobs = [
        await setting.submit("/bin/sh", "-c", f"echo {n} >answer; exit {n}", outputs=outputs)
        for n in (0, 0, 3)
    ]
    views = [await setting.ended(job, SECONDS) for job in jobs]
    assert [view.state for view in views] == [*[JobState.SUCCEEDED] * 2, JobState.FAILED]
    assert views[2].attempts[0].exit_code == 3
    assert asyncio.get_running_loop().time() - began < 15, "no job waits for a timer"
    await monitor.until(6)


async def test_manager_and_agent_answer_in_the_room(setting: Setting, agent: None) -> None:
    async def both() -> bool:
        code, said = await ask(setting, "ping", "--seconds", "1", "--output", "quiet")
        return code == 0 and set(said.split()) == {"alpha", "modern"}

    await eventually(both, SECONDS, "both answer")
    _, said = await ask(setting, "load", "--to", "alpha", "--to", "modern", "--json")
    assert {row["who"] for row in json.loads(said)} == {"alpha", "modern"}


async def test_what_originals_report_is_in_the_metrics(setting: Setting) -> None:
    login = await setting.server.login("old-jm", "alpha")
    async with AsyncExitStack() as stack:
        component = await stack.enter_async_context(playing(OriginalComponent(login)))
        component.say(
            f"together@{DOMAIN}",
            {"command": "reportEvent", "component": "jobmanager.generic", "event": "job.start"},
            noack=True,
        )
        wanted = (
            'copilot_original_events_total{component="jobmanager.generic",event="job.start"} 1.0'
        )

        async def counted() -> bool:
            return wanted in await metrics(setting)

        await eventually(counted, SECONDS, "the report is counted")


async def metrics(setting: Setting) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{setting.manager.url}/metrics") as reply:
        return await reply.text()
