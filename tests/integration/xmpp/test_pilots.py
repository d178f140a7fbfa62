"""Real managers and agents over real XMPP servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from copilot_agent.protocol.job import JobState
from tests.harness import programs
from tests.harness.jobs import Jobs
from tests.harness.xmpp import XmppServer, joined
from tests.integration.pilot.conftest import Gate, Setting

OVER_XMPP = ("--cores", "2", "--carriers", "xmpp")


@asynccontextmanager
async def running(server: XmppServer, root: Path, carriers: str = "xmpp") -> AsyncIterator[Setting]:
    home = root / "manager"
    options = ("--cores", "2", "--carriers", carriers, "--ca", str(server.authority.file))
    async with (
        programs.manager(
            home, lease_seconds=20.0, settings=joined(server, home / "data", home / "xmpp")
        ) as manager,
        programs.agent(manager, options=options) as agent,
        programs.client(manager) as client,
    ):
        yield Setting(client, root, manager, agent)


@pytest.fixture
async def setting(server: XmppServer, tmp_path: Path) -> AsyncIterator[Setting]:
    async with running(server, tmp_path) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path, "gate")


async def carriers(jobs: Jobs) -> list[str]:
    return [pilot.carrier for pilot in (await jobs.client.pilots.list()).items if pilot.carrier]


async def attached(setting: Setting, carrier: str = "xmpp", seconds: float = 20) -> None:
    async def there() -> bool:
        return await carriers(setting) == [carrier]

    await programs.eventually(there, seconds, f"a pilot on {carrier}")


async def test_jobs_come_back(setting: Setting) -> None:
    jobs = [await setting.submit("/bin/sh", "-c", f"echo {n}; exit {n}") for n in (0, 3)]
    good, bad = [await setting.ended(job) for job in jobs]
    assert (good.state, bad.state) == (JobState.SUCCEEDED, JobState.FAILED)
    assert (await setting.client.jobs.logs(good.id)).text == "0\n"
    await attached(setting)


async def test_an_offer_larger_than_a_stanza_arrives_whole(setting: Setting) -> None:
    environment = {f"V{n}": chr(0x4E00 + n) * 3000 + "<&>'\"\uffff" for n in range(20)}
    script = 'printf %s "$V19" | wc -m'
    job = await setting.submit("/bin/sh", "-c", script, environment=environment)
    assert (await setting.ended(job)).state is JobState.SUCCEEDED


async def test_a_restarted_server_costs_no_job(
    setting: Setting, server: XmppServer, gate: Gate
) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await server.stop()
    await server.start()
    gate.open()
    assert (await setting.ended(job)).state is JobState.SUCCEEDED
    assert len(gate.pids) == 1
    await attached(setting)


async def test_a_killed_manager_costs_no_job(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.manager.kill()
    await setting.manager.start()
    gate.open()
    assert (await setting.ended(job)).state is JobState.SUCCEEDED
    assert len(gate.pids) == 1


async def test_a_cancel_reaches_a_running_payload(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.client.jobs.cancel([job])
    assert (await setting.ended(job)).state is JobState.CANCELLED
    await programs.eventually(lambda: not programs.alive(gate.pids[0]), 20, "the payload is gone")


async def test_without_the_xmpp_server_the_socket_is_used(
    server: XmppServer, tmp_path: Path
) -> None:
    await server.stop()
    try:
        async with running(server, tmp_path, "xmpp,websocket,poll") as setting:
            job = await setting.submit("/bin/true")
            assert (await setting.ended(job)).state is JobState.SUCCEEDED
            await attached(setting, "websocket")
    finally:
        await server.start()


async def test_the_doctor_says_whether_the_manager_is_let_in(
    server: XmppServer, tmp_path: Path
) -> None:
    home = tmp_path / "manager"
    settings = joined(server, home / "data", home / "xmpp")
    manager = programs.ManagerProgram(home, settings=settings)
    assert "ok   XMPP: manager-1.test is let in" in await doctor(manager)
    (home / "xmpp").write_text("not the secret")
    assert "BAD  XMPP: manager-1.test: the XMPP server refuses the secret" in await doctor(manager)


async def doctor(manager: programs.ManagerProgram) -> str:
    process = await asyncio.create_subprocess_exec(
        *manager.command, "doctor", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()
