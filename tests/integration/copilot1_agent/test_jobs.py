"""Jobs of original managers, from the queue to the directory of what is done."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.chirp import ChirpServer
from tests.harness.copilot1_manager import OriginalManager
from tests.integration.copilot1_agent.agent import Copilot1Agent, Submit, contents

Managers = Callable[..., OriginalManager]
Agents = Callable[..., Copilot1Agent]

PHYSICS = """#!/bin/sh
echo "args: $1/$2/$3, $MYVAR, $(cat data)"
echo oh >&2
mkdir sub && echo result >sub/histogram
ln -s /etc/passwd link
"""


async def test_jobs_come_by_chirp_and_their_outputs_go_by_chirp(
    submit: Submit, managers: Managers, agents: Agents, tmp_path: Path
) -> None:
    physics = submit(
        PHYSICS,
        data=b"input data",
        arguments="a b 'c d'",
        environment='export MYVAR="x&<>y"',
    )
    validated = submit(
        "#!/bin/sh\nexit 2\n",
        data=b"#!/bin/sh\necho checked\nexit 5\n",
        validationScript="data",
    )
    packaged = submit('#!/bin/sh\necho "$PACKAGE"\n', packages="VO_ALICE@AliRoot::v4-16")
    manager = managers()
    await manager.start()
    await agents("--packages-command", str(_alienv(tmp_path))).start()
    await manager.until(lambda m: len(m.done) == 3)
    done = {each.info["jobID"]: each for each in manager.done}
    assert _describes_this_machine(manager.heard[0][2]["jdl"])

    info = done[physics].info
    assert (info["state"], info["exitCode"]) == ("ready", "0")
    assert info["jmJobData"].startswith("startedAt=")
    assert "####wallTime=0." in info["jmJobData"]
    assert info["agentHost"]
    assert "validateExitCode" not in info
    files = contents(done[physics])
    assert files["stdout"] == b"args: a/b/c d, x&<>y, input data\n"
    assert files["stderr"] == b"oh\n"
    assert files["sub/histogram"] == b"result\n"
    assert {"run.sh", "data", "_wrapper_.sh"} <= files.keys()
    assert "link" not in files

    info = done[validated].info
    assert (info["exitCode"], info["validateExitCode"]) == ("512", "1280")
    assert contents(done[validated])["validate_stdout"] == b"checked\n"

    assert contents(done[packaged])["stdout"] == b"print AliRoot/v4-16\n"


def _describes_this_machine(jdl: str) -> bool:
    lines = jdl.splitlines()
    standard = {'Type="machine";', 'Requirements=(other.Type=="Job");'}
    platform = f'Platform="{os.uname().sysname}-{os.uname().machine}";'
    memory = [line for line in lines if line.startswith("Memory=") and line[7:-1].isdigit()]
    return (lines[0], lines[-1]) == ("[", "]") and {*standard, platform, *memory} <= {*lines}


def _alienv(folder: Path) -> Path:
    """What sets up packages, or a double of it."""
    command = folder / "alienv"
    command.write_text("#!/bin/sh\necho \"export PACKAGE='$1 $2'\"\n")
    command.chmod(0o755)
    return command


async def test_how_a_job_ended_is_told_as_a_raw_wait_status(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    endings = {
        "exit 3": 768,
        "kill -9 $$": 35072,  # as a shell reports it: 137 << 8
        "sleep 60": 15,  # beyond the run time: the whole payload dies by SIGTERM
    }
    names = {submit(f"#!/bin/sh\necho began\n{script}\n"): script for script in endings}
    manager = managers()
    await manager.start()
    await agents("--run-seconds", "1").start()
    await manager.until(lambda m: len(m.done) == 3)
    assert {
        names[each.info["jobID"]]: int(each.info["exitCode"]) for each in manager.done
    } == endings
    assert all(contents(each)["stdout"] == b"began\n" for each in manager.done)


async def test_jobs_that_cannot_be_run_are_told_to_have_failed_and_why(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    refused = {
        submit("#!/bin/sh\n", b"", **mistake): reason
        for mistake, reason in (
            ({"packages": "VO_ALICE@AliRoot::v4"}, b"--packages-command"),
            ({"inputFiles": "nowhere"}, b"nowhere: there is no such file"),
            ({"inputFiles": "_wrapper_.sh"}, b"is the name of a file that the agent makes"),
            ({"command": "x;touch pwn"}, b"job.command: must be a plain file name"),
            ({"inputFiles": "run.sh###../../etc/passwd"}, b"job.inputFiles"),
            ({"inputDir": "../.."}, b"job.inputDir"),
            ({"arguments": "x" * 33_000}, b"job.arguments"),
        )
    }
    manager = managers()
    await manager.start()
    await agents().start()
    await manager.until(lambda m: len(m.done) == len(refused))
    for done in manager.done:
        assert done.info["exitCode"] == "32000"
        assert refused.pop(done.info["jobID"]) in contents(done)["stderr"]


async def test_a_job_whose_name_is_an_attack_is_not_touched_and_the_next_one_is_done(
    submit: Submit, managers: Managers, agents: Agents, tmp_path: Path
) -> None:
    submit("#!/bin/sh\n", id=f"x;touch {tmp_path}/pwn")
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: m.said["runJob"] == 1)
    name = submit("#!/bin/sh\n")
    await manager.until(lambda m: bool(m.done))
    assert manager.done[0].info["jobID"] == name
    assert "job.id: must be letters" in agent.said
    assert not (tmp_path / "pwn").exists()


async def test_a_chirp_server_that_is_away_at_the_end_is_waited_for(
    submit: Submit, managers: Managers, agents: Agents, chirp: ChirpServer
) -> None:
    submit("#!/bin/sh\necho done\n")
    manager = managers()
    await manager.start()
    agent = agents()
    await agent.start()
    await manager.until(lambda m: bool(m.times("want_getJobOutputDir")) or bool(m.done))
    await chirp.stop()
    await manager.until(lambda m: len(m.times("getJobOutputDir")) > 1 or bool(m.done))
    await chirp.start()
    await manager.until(lambda m: bool(m.done))
    assert contents(manager.done[0])["stdout"] == b"done\n"


@pytest.mark.root
async def test_a_payload_user_owns_the_job_and_nothing_else(
    submit: Submit, managers: Managers, agents: Agents
) -> None:
    submit("#!/bin/sh\nid -u\necho x >new\ncat ../../../../*.password\n", data=b"input")
    manager = managers()
    await manager.start()
    await agents("--payload-user", "200000").start()
    await manager.until(lambda m: bool(m.done))
    files = contents(manager.done[0])
    assert 200_000 <= int(files["stdout"]) < 200_064
    assert files["new"] == b"x\n"
    assert files["data"] == b"input"
    assert b"No such file" in files["stderr"] or b"Permission denied" in files["stderr"]
