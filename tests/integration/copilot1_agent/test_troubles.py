"""Original managers with their quirks and faults, and agents that die."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.harness.copilot1_manager import OriginalManager, Redis
from tests.harness.copilot1_server import Copilot1Server
from tests.harness.programs import eventually
from tests.integration.copilot1_agent.agent import COOLDOWN, Copilot1Agent, Submit, contents

Managers = Callable[..., OriginalManager]
Agents = Callable[..., Copilot1Agent]

QUICK = "#!/bin/sh\necho done\n"


async def test_short_jobs_never_lead_to_a_request_within_the_cooldown(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    for _ in range(3):
        submit(QUICK)
    manager = managers()
    await manager.start()
    await agents().start()
    await manager.until(lambda m: len(m.done) == 3)
    gaps = [after - before for before, after in pairwise(manager.times("want_getJob"))]
    assert min(gaps) > COOLDOWN
    assert manager.said["sleep"] == 0


async def test_the_race_of_two_instances_ends_with_the_job_done(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    """The instance that is second finds the first one's note, and says sleep to the same want."""
    submit(QUICK)
    alpha, beta = managers("alpha"), managers("beta", generation="B")
    await alpha.start()
    await beta.start()
    await agents().start()
    async with asyncio.timeout(20):
        while not (alpha.done or beta.done):
            await asyncio.wait(
                [asyncio.create_task(each.news.wait()) for each in (alpha, beta)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in (alpha, beta):
                each.news.clear()
    assert alpha.said["have_getJob"] + beta.said["have_getJob"] == 1
    assert alpha.said["sleep"] + beta.said["sleep"] >= 1
    assert len(alpha.times("getJob")) + len(beta.times("getJob")) == 1


@pytest.mark.parametrize("fault", [{"keeps_jobs": True}, {"dies_after": "have_getJob"}])
async def test_a_manager_that_does_not_give_its_job_is_left_for_another_one(
    submit: Submit, managers: Managers, agents: Agents, fault: dict[str, object]
) -> None:
    submit(QUICK)
    bad, good = managers("alpha", **fault), managers("beta")
    await bad.start()
    agent = agents()
    await agent.start()
    await bad.until(lambda m: m.said["have_getJob"] == 1)
    await good.start()
    if not fault.get("dies_after"):
        await bad.until(lambda m: bool(m.times("getJob")))
        await bad.stop()
    await good.until(lambda m: bool(m.done))
    assert contents(good.done[0])["stdout"] == b"done\n"


async def test_a_manager_without_a_required_file_is_passed_over(
    submit: Submit, managers: Managers, agents: Agents, tmp_path: Path
) -> None:
    submit(QUICK)
    needed = tmp_path / "needed"
    manager = managers(require_file=str(needed))
    await manager.start()
    await agents().start()
    await manager.until(lambda m: m.said["have_getJob"] == 2)
    assert not manager.times("getJob")
    needed.touch()
    await manager.until(lambda m: bool(m.done))


async def test_a_manager_that_is_started_again_meanwhile_gets_the_job(
    submit: Submit, managers: Managers, agents: Agents, tmp_path: Path
) -> None:
    """As another instance of it: outputs are for all of an address."""
    go = tmp_path / "go"
    submit(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho done\n")
    first = managers("alpha")
    await first.start()
    await agents().start()
    await first.until(lambda m: m.said["runJob"] == 1)
    await first.stop()
    go.touch()
    second = managers("beta")
    await second.start()
    await second.until(lambda m: bool(m.done))
    assert contents(second.done[0])["stdout"] == b"done\n"


async def test_jobdone_is_repeated_until_it_arrives_and_then_forgotten(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    submit(QUICK)
    manager = managers(loses_done=2)
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: bool(m.done))
    assert manager.loses_done == 0
    kept = agent.state / "copilot1" / "assignments"
    await eventually(lambda: not list(kept.iterdir()), what="the job is forgotten")


async def test_an_agent_that_dies_in_a_job_is_followed_by_one_that_says_so(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    name = submit("#!/bin/sh\nsleep 600\n")
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: m.said["runJob"] == 1)
    await eventually(lambda: "working" in agent.said, what="the job runs")
    await agent.kill()
    await agent.start()
    await manager.until(lambda m: bool(m.done))
    info = manager.done[0].info
    assert (info["jobID"], info["exitCode"]) == (name, "32000")
    assert b"the agent died" in contents(manager.done[0])["stderr"]
    gaps = [after - before for before, after in pairwise(manager.times("want_getJob"))]
    assert all(gap > COOLDOWN for gap in gaps)
    assert manager.said["sleep"] == 0


async def test_an_agent_that_dies_before_an_acknowledgement_says_it_again_with_the_same_id(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    submit(QUICK)
    manager = managers(generation="B", loses_acks=1)
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: len(m.done) == 1)
    await agent.kill()
    await agent.start()
    await manager.until(lambda m: len(m.done) == 2)
    assert manager.done[0].id == manager.done[1].id
    assert manager.done[0].info == manager.done[1].info


async def test_what_is_said_by_strangers_is_acknowledged_and_nothing_else(
    submit: Submit, managers: Managers, agents: Agents, redis: Redis
) -> None:
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: bool(m.times("want_getJob")))
    mallory = managers("mallory", account="mallory")
    await mallory.start()
    agent_jid = manager.senders[0]
    ids = [
        await mallory.say(agent_jid, info)
        for info in (
            {"command": "have_getJob"},
            {"command": "runJob", "job": {"id": "x", "command": "x", "chirpUrl": "h:1"}},
            {"command": "sleep"},
            {"command": "redirect", "referral": mallory.jid, "info": {"command": "getJob"}},
            {"command": "error", "errorString": "die"},
            {"command": "nonsense"},
        )
    ]
    await mallory.until(lambda m: set(ids) <= m.acked.keys())
    assert not mallory.heard
    submit(QUICK)
    await manager.until(lambda m: bool(m.done))


async def test_a_server_that_is_not_the_domain_s_gets_no_password(
    agents: Agents, managers: Managers
) -> None:
    """Unless the operator says that it may be anybody."""
    strict, lenient = agents(trusted=False), agents("--insecure", trusted=False)
    manager = managers()
    await manager.start()
    await strict.start()
    await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in strict.said)
    assert not manager.heard
    await lenient.start()
    await manager.until(lambda m: bool(m.times("want_getJob")))
    assert "whoever answers" in lenient.said


async def test_an_xmpp_server_that_is_started_again_changes_nothing_for_a_job(
    server: Copilot1Server,
    submit: Submit,
    managers: Managers,
    agents: Agents,
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    submit(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho done\n")
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await eventually(lambda: "gives job" in agent.said, what="the job has arrived")
    await server.stop()
    await manager.stop()
    go.touch()
    await server.start()
    await manager.start()
    await manager.until(lambda m: bool(m.done))
    assert contents(manager.done[0])["stdout"] == b"done\n"
    assert manager.said["runJob"] == 1


async def test_an_agent_that_is_told_to_stop_tells_its_manager(
    submit: Submit, managers: Managers, agents: Agents, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    name = submit(f"#!/bin/sh\ntouch {started}\nsleep 600\n")
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await eventually(started.exists, what="the job runs")
    await agent.stop()
    await manager.until(lambda m: bool(m.done))
    assert (manager.done[0].info["jobID"], manager.done[0].info["exitCode"]) == (name, "15")
    assert b"told to stop" in contents(manager.done[0])["stderr"]
