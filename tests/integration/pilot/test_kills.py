"""Kill -9 in the middle of a job: it ends exactly once all the same."""

import asyncio
from pathlib import Path

import pytest

from copilot_agent.protocol.job import JobState, Outcome
from tests.harness import programs
from tests.harness.jobs import succeeded_once
from tests.integration.pilot.conftest import Gate, Setting


async def test_payload_killed(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    programs.kill(gate.pids[0])
    await gate.runs(2)
    gate.open()
    view = await setting.ended(job)
    succeeded_once(view)
    assert view.attempts[0].signal == 9


async def test_agent_killed_and_started_again(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.agent.kill()
    await setting.agent.start()
    await gate.runs(2)
    assert not programs.alive(gate.pids[0]), "the payload of the dead agent must be gone"
    gate.open()
    view = await setting.ended(job)
    succeeded_once(view)
    assert not view.attempts[0].charged


async def test_agent_killed_for_good(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.agent.kill()
    async with programs.agent(setting.manager, "second"):
        await gate.runs(2)
        gate.open()
        view = await setting.ended(job)
        succeeded_once(view)
        assert view.attempts[0].outcome is Outcome.LOST


async def test_manager_killed_and_started_again(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.manager.kill()
    await setting.manager.start()
    await setting.reached(job, JobState.RUNNING)
    gate.open()
    view = await setting.ended(job)
    succeeded_once(view)
    assert len(gate.pids) == 1, "the running payload went on"


async def test_a_job_that_ends_while_the_manager_is_away(setting: Setting, gate: Gate) -> None:
    job = await setting.submit(*gate.command)
    await gate.runs()
    await setting.manager.kill()
    gate.open()
    await programs.eventually(lambda: not programs.alive(gate.pids[0]), 10, "the payload's end")
    await setting.manager.start()
    view = await setting.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1


@pytest.mark.parametrize("both", [False, True], ids=["manager", "manager-and-agent"])
async def test_nothing_acknowledged_is_lost(setting: Setting, both: bool) -> None:
    jobs = [await setting.submit("/bin/true") for _ in range(20)]
    await setting.manager.kill()
    if both:
        await setting.agent.kill()
        await setting.agent.start()
    await setting.manager.start()
    for job in jobs:
        succeeded_once(await setting.ended(job, 60))
    receipts = (await setting.client.credit.receipts()).items
    assert sorted(receipt.statement.job for receipt in receipts) == sorted(jobs)


async def test_the_manager_is_away_for_longer_than_a_lease(tmp_path: Path) -> None:
    """A minute's outage with leases of 20 s, ten times as fast: no attempt is lost by it."""
    lease = {"heartbeat_seconds": 0.5, "lease_seconds": 2.0}
    async with (
        programs.manager(tmp_path / "manager", **lease) as manager,
        programs.agent(manager) as agent,
        programs.client(manager) as client,
    ):
        setting = Setting(client, tmp_path, manager, agent)
        gates = [Gate(tmp_path, name) for name in ("ends-meanwhile", "goes-on")]
        jobs = [await setting.submit(*gate.command) for gate in gates]
        for gate in gates:
            await gate.runs()
        await manager.kill()
        gates[0].open()
        await asyncio.sleep(6)  # the outage itself, by the clocks of real processes
        await manager.start()
        assert (await setting.reached(jobs[1], JobState.RUNNING)).attempt == 1
        gates[1].open()
        for job in jobs:
            view = await setting.ended(job)
            succeeded_once(view)
            assert len(view.attempts) == 1
