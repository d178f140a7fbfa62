"""Original agents that die, repeat themselves, lie or lose their manager."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from copilot_agent.protocol.job import FailureClass, JobState, Outcome
from tests.harness.chirp import ChirpServer, chirp_server
from tests.harness.copilot1_agent import AgentDiedError, Habits, OriginalAgent, Told
from tests.harness.copilot1_server import Copilot1Server
from tests.harness.jobs import succeeded_once
from tests.harness.programs import eventually
from tests.integration.copilot1.settings import SECONDS, Setting, running

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def setting(server: Copilot1Server, tmp_path: Path) -> AsyncIterator[Setting]:
    """A manager of the test's own, which is soon tired of waiting."""
    async with (
        chirp_server() as chirp,
        running(server, chirp, tmp_path, "job_seconds = 2\n", "jm-own") as own,
    ):
        yield own


async def gate(setting: Setting, **fields: object) -> tuple[str, Path]:
    """A job that ends when a file is there."""
    path = setting.root / f"gate-{len(list(setting.root.glob('*')))}"
    job = await setting.submit(
        "/bin/sh", "-c", f"until [ -e {path} ]; do sleep 0.05; done", **fields
    )
    return job, path


@asynccontextmanager
async def at_work(setting: Setting, habits: Habits | None = None) -> AsyncIterator[OriginalAgent]:
    """An agent that has been given a job; at the end it is seen to have done it."""
    async with setting.agent(habits) as agent:
        running = asyncio.create_task(agent.run())
        try:
            await told(agent, "runJob")
            yield agent
            await asyncio.wait_for(running, SECONDS)
        finally:
            running.cancel()
            await asyncio.wait([running])


async def told(agent: OriginalAgent, command: str, times: int = 1) -> list[Told]:
    def found() -> list[Told]:
        return [one for one in agent.told if one.command == command]

    await eventually(lambda: len(found()) >= times, what=f"{command} comes {times} times")
    return found()


async def dies(setting: Setting, habits: Habits) -> OriginalAgent:
    async with setting.agent(habits) as agent:
        with suppress(ExceptionGroup):
            await asyncio.wait_for(agent.run(), SECONDS)
        assert any(one.command == "runJob" for one in agent.told)
        return agent


async def test_a_restarted_agent_gets_the_same_attempt_again(shared: Setting) -> None:
    job = await shared.submit("/bin/true")
    async with shared.agent(Habits(dies_with_job=True)) as agent:
        with pytest.raises(ExceptionGroup) as died:
            await agent.run()
        assert died.group_contains(AgentDiedError)
        restarted = OriginalAgent(agent.stream, agent.manager, agent.work)
        await asyncio.wait_for(restarted.run(), SECONDS)
    first, second = (one.told for one in (agent, restarted))
    ids = {told.job["id"] for told in (*first, *second) if told.command == "runJob"}
    view = await shared.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == len(ids) == 1


async def test_an_agent_that_always_dies_does_not_keep_the_job(shared: Setting) -> None:
    job = await shared.submit("/bin/true")
    async with shared.agent(Habits(dies_with_job=True)) as agent:
        for habits in (*[agent.habits] * 3, Habits()):
            again = OriginalAgent(agent.stream, agent.manager, agent.work, habits)
            with suppress(ExceptionGroup):
                await asyncio.wait_for(again.run(), SECONDS)
    view = await shared.ended(job)
    succeeded_once(view)
    first, _ = view.attempts
    assert (first.outcome, first.failure_class) == (Outcome.FAILED, FailureClass.LEASE_LOST)
    assert "while it held this one" in first.message


async def test_what_a_dead_agent_had_goes_to_another(setting: Setting) -> None:
    job = await setting.submit("/bin/true")
    await dies(setting, Habits(dies_with_job=True))
    await setting.reached(job, "waiting", 20)
    assert "had its time" in (await setting.client.jobs.show(job)).attempts[0].message
    await setting.works()
    view = await setting.ended(job)
    succeeded_once(view)
    assert [attempt.failure_class for attempt in view.attempts] == [FailureClass.LEASE_LOST, None]


async def test_an_agent_that_is_not_connected_loses_its_job_soon(
    server: Copilot1Server, chirp: ChirpServer, tmp_path: Path
) -> None:
    more = "gone_seconds = 0.4\n"
    async with running(server, chirp, tmp_path, more, "jm-own") as setting:
        job, path = await gate(setting)
        async with at_work(setting) as agent:
            await told(agent, "Heartbeat:ping", 6)  # longer than it may be gone
            assert (await setting.client.jobs.show(job)).state is JobState.RUNNING
            path.touch()
        succeeded_once(await setting.ended(job))
        job = await setting.submit("/bin/true")
        await dies(setting, Habits(dies_with_job=True))
        await setting.reached(job, "waiting", 10)
        assert "is gone" in (await setting.client.jobs.show(job)).attempts[0].message
        await setting.works()
        succeeded_once(await setting.ended(job))


async def test_an_agent_with_the_required_file_and_many_cores_has_one_job_at_a_time(
    server: Copilot1Server, chirp: ChirpServer, tmp_path: Path
) -> None:
    more = 'cores = 4\nrequire_file = "/etc/cernvm"\n'
    async with running(server, chirp, tmp_path, more, "jm-own") as setting:
        jobs = [await setting.submit("/bin/true", max_attempts=1) for _ in range(3)]
        async with setting.agent(Habits(minute=0.05)) as lacking:
            with pytest.raises(ExceptionGroup) as died:
                await lacking.run()
        assert died.group_contains(AgentDiedError, match="file is missing")
        assert {one.values.get("requireFile") for one in lacking.told} == {"/etc/cernvm"}
        agent = await setting.works(Habits(jobs=3, has_files=("/etc/cernvm",)))
        for job in jobs:
            succeeded_once(await setting.ended(job))
        assert len(agent.outcomes) == 3


@pytest.mark.parametrize("generation", ["A", "B"])
async def test_agents_that_never_acknowledge_are_served(shared: Setting, generation: str) -> None:
    job = await shared.submit("/bin/true")
    await shared.works(Habits(generation, acks=False))
    succeeded_once(await shared.ended(job))


async def test_a_repeated_job_done_counts_once(shared: Setting) -> None:
    before = await shared.client.credit.total()
    job = await shared.submit("/bin/true", reference_cpu_seconds=864)
    agent = await shared.works(Habits(reports_times=3))
    succeeded_once(await shared.ended(job))
    assert [one[1] for one in agent.said].count("jobDone") == 3
    total = await shared.client.credit.total()
    assert total.granted - before.granted == pytest.approx(2)


async def test_the_same_get_job_is_the_same_job_also_in_its_corrupted_copy(shared: Setting) -> None:
    jobs = [await shared.submit("/bin/true") for _ in range(2)]
    async with shared.agent() as agent:
        listening = asyncio.create_task(agent._listen())
        manager = f"{agent.manager}/alpha"
        name = await agent.say(manager, "getJob", jdl=agent.habits.machine)
        await told(agent, "runJob")
        stanza = agent._stanza(manager, {"command": "getJob", "jdl": "[ ]"}, name)
        await agent.stream.send(stanza)
        await agent.say(manager, "getJob", name, jdl=agent.habits.machine)
        await agent.say_again(name)
        runs = await told(agent, "runJob", 4)
        assert len({run.job["id"] for run in runs}) == 1
        assert agent.acked.count(name) >= 4, "and each is acknowledged"
        listening.cancel()
        await asyncio.wait([listening])
        done = OriginalAgent(agent.stream, agent.manager, agent.work, Habits(jobs=2))
        await asyncio.wait_for(done.run(), SECONDS)
    for job in jobs:
        succeeded_once(await shared.ended(job))


async def test_nobody_else_can_end_an_agents_job(shared: Setting) -> None:
    job, path = await gate(shared)
    async with at_work(shared) as agent, shared.agent() as stranger:
        listening = asyncio.create_task(stranger._listen())
        (run,) = await told(agent, "runJob")
        about = {"jobID": run.job["id"], "state": "ready", "exitCode": "0", "agentHost": "vm"}
        for to in (stranger.manager, run.sender):
            name = await stranger.say(to, "jobDone", **about)
            await eventually(lambda name=name: name in stranger.acked, what="it is acknowledged")
        await stranger.say(stranger.manager, "want_getJobOutputDir", agentIP="todo", **about)
        assert (await shared.client.jobs.show(job)).state is JobState.RUNNING
        path.touch()
        listening.cancel()
        await asyncio.wait([listening])
    assert stranger.told == []
    succeeded_once(await shared.ended(job))
    assert "which is not its own" in shared.manager.said


HOSTILE = ["../../../etc", "x; touch /tmp/pwned", "$(reboot)", "a/b", "..", "j-1.1.0", "x" * 5000]


async def test_hostile_names_do_nothing_but_are_acknowledged(shared: Setting) -> None:
    before = shared.chirp.names()
    async with shared.agent() as agent:
        listening = asyncio.create_task(agent._listen())
        for hostile in HOSTILE:
            about = {"jobID": hostile, "agentHost": hostile[:200], "agentIP": "todo"}
            names = [
                await agent.say(agent.manager, "want_getJobOutputDir", **about),
                await agent.say(agent.manager, "getJobOutputDir", **about),
                await agent.say(agent.manager, "jobDone", exitCode="0", state="ready", **about),
            ]
            await eventually(lambda names=names: set(names) <= set(agent.acked), what="acks")
        listening.cancel()
        await asyncio.wait([listening])
    assert agent.told == []
    assert shared.chirp.names() == before


async def test_an_archive_that_is_a_link_is_not_followed(shared: Setting) -> None:
    job = await shared.submit("/bin/true", max_attempts=1)
    async with shared.agent() as agent:
        listening = asyncio.create_task(agent._listen())
        manager = f"{agent.manager}/alpha"
        await agent.say(manager, "getJob", jdl=agent.habits.machine)
        (run,) = await told(agent, "runJob")
        name = run.job["id"]
        about = {"jobID": name, "agentHost": "vm"}
        await agent.say(manager, "getJobOutputDir", **about)
        await told(agent, "storeJobOutputDir")
        argv = ("chirp", "-t", "5", "-a", "address", shared.chirp.address)
        link = (*argv, "ln", "-s", "/etc/passwd", f"/{name}/{name}.tgz")
        await asyncio.to_thread(subprocess.run, link, check=True, capture_output=True)
        await agent.say(manager, "jobDone", state="ready", exitCode="0", **about)
        view = await shared.ended(job)
        listening.cancel()
        await asyncio.wait([listening])
    assert view.attempts[0].failure_class is FailureClass.STAGE_OUT


async def test_agents_see_only_their_own_directories(shared: Setting) -> None:
    job, path = await gate(shared, inputs=[await shared.upload("secret", b"secret\n")])
    async with at_work(shared) as agent:
        (run,) = await told(agent, "runJob")
        inputs = run.job["inputDir"]

        async def chirp(*words: str) -> int:
            argv = ("chirp", "-t", "5", "-a", "address", shared.chirp.address, *words)
            done = await asyncio.to_thread(subprocess.run, argv, capture_output=True)
            return done.returncode

        assert await chirp("ls", f"/{inputs}") == 0
        assert await chirp("ls", "/") != 0
        assert await chirp("mkdir", "/evil") != 0
        assert await chirp("rm", f"/{inputs}/_copilot_start_.sh") != 0
        assert await chirp("put", "/etc/hostname", f"/{inputs}/more") != 0
        assert await chirp("setacl", f"/{inputs}", "address:127.0.0.1", "rwlda") != 0
        path.touch()
    succeeded_once(await shared.ended(job))


async def test_a_cancelled_job_ends_and_its_agent_goes_on(shared: Setting) -> None:
    job, path = await gate(shared)
    async with at_work(shared, Habits(jobs=2)) as agent:
        await shared.client.jobs.cancel([job])
        view = await shared.ended(job)
        assert view.state is JobState.CANCELLED
        path.touch()
        await eventually(lambda: len(agent.outcomes) == 1, what="it brings what nobody wants")
        other = await shared.submit("/bin/true")
    succeeded_once(await shared.ended(other))
    assert (await shared.client.jobs.show(job)).state is JobState.CANCELLED


async def test_operators_see_an_agent_and_may_retire_it(shared: Setting) -> None:
    job, path = await gate(shared)
    async with at_work(shared, Habits(jobs=2)):
        pilots = (await shared.client.pilots.list()).items
        (pilot,) = [one for one in pilots if one.carrier == "copilot1"]
        assert pilot.jobs == (job,)
        await shared.client.pilots.retire(pilot.id)
        path.touch()
    view = await shared.ended(job)
    assert [one.failure_class for one in view.attempts] == [FailureClass.PREEMPTED, None]
    assert view.attempts[1].pilot != pilot.id
    succeeded_once(view)


async def test_a_killed_manager_takes_what_its_agents_bring_after_its_return(
    server: Copilot1Server, chirp: ChirpServer, tmp_path: Path
) -> None:
    async with running(server, chirp, tmp_path, account="jm-own") as setting:
        job, path = await gate(setting)
        async with at_work(setting, Habits(output_minute=0.1)) as agent:
            await setting.manager.kill()
            path.touch()
            await eventually(
                lambda: [one[1] for one in agent.said].count("want_getJobOutputDir") > 1,
                what="the agent asks in vain",
            )
            await setting.manager.start()
        view = await setting.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1


async def test_never_any_sleep(shared: Setting) -> None:
    """Not for short jobs, nor for an agent that asks again at once."""
    jobs = [await shared.submit("/bin/true") for _ in range(3)]
    agent = await shared.works(Habits(jobs=3))
    for job in jobs:
        succeeded_once(await shared.ended(job))
    assert not agent.rebooted
    assert {one.command for one in agent.told} == {
        *("have_getJob", "runJob", "have_getJobOutputDir", "storeJobOutputDir")
    }
