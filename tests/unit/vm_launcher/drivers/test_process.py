"""Telling processes apart, and ending only our own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from vm_launcher.drivers.base import DriverError
from vm_launcher.drivers.qemu import process
from vm_launcher.drivers.qemu.limits import DutyCycle

TOKEN = "11111111-2222-4333-8444-555555555555"
PYTHON = "/usr/bin/python3"
"""One that `nobody` may run, wherever this checkout and its environment lie."""
SLEEPER = [PYTHON, "-c", "import time; time.sleep(600)", TOKEN]
BUSY = [PYTHON, "-c", "while True: pass", TOKEN]


def state(pid: int) -> str:
    """One letter, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def start(command: list[str]) -> asyncio.subprocess.Process:
    return await process.spawn(command, [], None, nice=0)


async def test_only_the_very_process_is_killed() -> None:
    child = await start(SLEEPER)
    mark = process.mark(child.pid, TOKEN)
    assert not process.kill(mark.model_copy(update={"start_ticks": mark.start_ticks + 1}))
    assert not process.kill(mark.model_copy(update={"token": TOKEN.replace("1", "9")}))
    assert process.is_alive(mark)
    assert process.kill(mark)
    assert await child.wait() == -signal.SIGKILL
    assert not process.is_alive(mark)
    assert not process.kill(mark), "nothing is left to kill"


async def test_a_child_has_its_own_session_and_a_bare_environment() -> None:
    os.environ["COPILOT_TOKEN"] = "secret"
    try:
        child = await start(SLEEPER)
    finally:
        del os.environ["COPILOT_TOKEN"]
    assert os.getsid(child.pid) == child.pid
    assert b"secret" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    child.kill()
    await child.wait()


async def test_the_child_dies_with_its_parent() -> None:
    parent = (
        "import asyncio, sys; from vm_launcher.drivers.qemu import process\n"
        "async def main():\n"
        f"    child = await process.spawn({SLEEPER!r}, [], process.account('nobody'), nice=0)\n"
        "    print(child.pid, flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    child = int(await running.stdout.readline())
    mark = process.mark(child, TOKEN)
    gone = os.pidfd_open(child)
    dead = asyncio.Event()
    asyncio.get_running_loop().add_reader(gone, dead.set)
    running.kill()
    async with asyncio.timeout(1):
        await dead.wait()
    asyncio.get_running_loop().remove_reader(gone)
    os.close(gone)
    await running.communicate()
    assert not process.is_alive(mark)


async def test_a_missing_program_is_said_with_its_package() -> None:
    with pytest.raises(DriverError, match="not installed") as caught:
        await start(["qemu-system-nothing"])
    assert "apt install" in caught.value.remedy


@pytest.mark.parametrize("name", ["root", "0", "no-such-user"])
def test_a_vm_never_runs_as_root(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(DriverError):
        process.account(name)


def test_an_ordinary_user_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert process.account("no-such-user") is None


async def test_a_duty_cycle_limits_and_lets_go() -> None:
    child = await start(BUSY)
    limit = DutyCycle(child.pid, 20)
    limit.on()
    await asyncio.sleep(0.5)  # Python's own start is over
    before = process.cpu_seconds(child.pid)
    await asyncio.sleep(2)  # the span that is measured
    assert process.cpu_seconds(child.pid) - before < 0.8
    await limit.off()
    assert state(child.pid) != "T"
    child.kill()
    await child.wait()
