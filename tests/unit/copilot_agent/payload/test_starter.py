"""The process that starts payloads: whose child they are, and what happens when it dies."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.payload.launch import Identity, PayloadStartError, Start, spawn
from copilot_agent.payload.starter import Starter
from copilot_agent.protocol.job import FailureClass
from tests.harness.programs import alive, eventually


@pytest.fixture
def starter() -> Iterator[Starter]:
    made = Starter()
    yield made
    made.close()


def order(directory: Path, *argv: str, identity: Identity | None = None) -> Start:
    return Start(
        argv=argv,
        executable=argv[0],
        environment={"NAME": "caf\udce9", "PATH": "/bin"},
        directory=directory,
        identity=identity or Identity(),
        entries=(),
        limits=(),
        namespaces=None,
        stdin=0,
        stdout=1,
        stderr=2,
    )


def code(pid: int) -> int:
    """Fails unless the process is our own child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def test_the_program_is_our_child_in_a_session_of_its_own(
    starter: Starter, tmp_path: Path
) -> None:
    script = 'printf "%s" "$NAME" >name; cut -d" " -f6 /proc/$$/stat >session; exit 7'
    pid = await spawn(starter, order(tmp_path, "/bin/sh", "-c", script))
    assert code(pid) == 7
    assert (tmp_path / "name").read_bytes() == b"caf\xe9"
    assert int((tmp_path / "session").read_text()) == pid


async def test_an_order_may_be_as_large_as_a_jobs_command(starter: Starter, tmp_path: Path) -> None:
    argv = ("/bin/sh", "-c", "exit $(($# / 20))", *["x" * 4096] * 256)
    assert code(await spawn(starter, order(tmp_path, *argv))) == 12


async def test_what_cannot_run_leaves_nothing(starter: Starter, tmp_path: Path) -> None:
    with pytest.raises(PayloadStartError, match="not executable"):
        await spawn(starter, order(tmp_path, "/etc/passwd"))
    with pytest.raises(PayloadStartError, match="No such file") as caught:
        await spawn(starter, order(tmp_path / "gone", "/bin/true"))
    assert caught.value.failure_class is FailureClass.HOST
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert children.count(str(starter.pid)) == 1
    assert all(alive(int(child)) for child in children)


async def test_a_killed_starter_is_replaced(starter: Starter, tmp_path: Path) -> None:
    first = starter.pid
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: not alive(first), 5, "the starter's end")
    assert code(await spawn(starter, order(tmp_path, "/bin/true"))) == 0
    assert starter.pid != first


def test_it_ends_with_its_agent() -> None:
    program = (
        "import sys, time; from copilot_agent.payload.starter import Starter\n"
        "starter = Starter(); print(starter.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        assert alive(pid)
        agent.kill()
        agent.wait()
    asyncio.run(eventually(lambda: not alive(pid), 5, "the starter's end"))
