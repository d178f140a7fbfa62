"""The client's side, played by the test, and a task on the other side of the slot."""

import asyncio
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.programs import eventually
from vm_launcher.boinc.shared_memory import FILE_BYTES, Channel, MessageFile

SOURCES = Path(__file__).parents[3]


class ClientSide:
    """Makes the slot and speaks through its memory, as the client does."""

    def __init__(self, slot: Path, pid: int) -> None:
        self.slot = slot
        slot.mkdir()
        (slot / "boinc_mmap_file").write_bytes(bytes(FILE_BYTES))
        fields = {
            "major_version": 7, "hostid": 17, "shm_key": -1, "slot": 0, "client_pid": pid,
            "wu_cpu_time": 100.5, "checkpoint_period": 10,
            "fraction_done_start": 0, "fraction_done_end": 1,
        }  # fmt: skip
        lines = [f"<{name}>{value}</{name}>" for name, value in fields.items()]
        text = "\n".join(["<app_init_data>", *lines, "</app_init_data>", ""])
        (slot / "init_data.xml").write_text(text)
        self.memory = MessageFile(slot / "boinc_mmap_file")

    async def order(self, name: str) -> None:
        await self._say(Channel.PROCESS_CONTROL_REQUEST, f"<{name}/>\n")

    async def beat(self, more: str = "") -> None:
        text = f"<heartbeat/>\n<wss>1.500000e+06</wss>\n<max_wss>3.000000e+09</max_wss>\n{more}"
        await self._say(Channel.HEARTBEAT, text)

    async def trickle_down(self, name: str, text: str) -> None:
        part = self.slot / "part"
        part.write_text(text)
        part.rename(self.slot / name)
        await self._say(Channel.TRICKLE_DOWN, "<have_trickle_down/>\n")

    async def _say(self, channel: Channel, text: str) -> None:
        await eventually(lambda: self.memory.send(channel, text), 5, channel.name)

    async def message(self, channel: Channel) -> str:
        await eventually(lambda: self.memory.unread(channel), 5, channel.name)
        return self.memory.receive(channel) or ""


@dataclass
class Task:
    """The process of a task."""

    which: str
    client: ClientSide
    process: Process

    async def call(self, name: str, *arguments: Any) -> Any:
        self.tell(name, *arguments)
        return await self.answer()

    def tell(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 15)
        assert line, f"the task ({self.which}) has ended"
        return json.loads(line)

    async def sees(self, **wanted: Any) -> dict[str, Any]:
        """Wait until it has seen that."""
        seen: dict[str, Any] = {}

        async def all_seen() -> bool:
            seen.update(await self.call("seen"))
            return wanted.items() <= seen.items()

        await eventually(all_seen, 15, f"{self.which}: {wanted}")
        return seen

    def files(self) -> dict[str, str]:
        """All but what the client made and the log."""
        known = ("boinc_mmap_file", "init_data.xml", "stderr.txt", "copilot_trickles.json")
        return {
            path.name: path.read_text()
            for path in self.client.slot.iterdir()
            if path.name not in known
        }


Scenario = Callable[[Task], Awaitable[Any]]


@dataclass
class Both:
    """The official library and ours, each in a slot of its own."""

    root: Path
    stack: AsyncExitStack
    count: int = field(default=0)

    async def same(self, scenario: Scenario, *, send_status: bool = False) -> Any:
        """What came of it; fails if it was not the same with both."""

        async def play(which: str) -> Any:
            return await scenario(await self.task(which, send_status=send_status))

        official, ours = await asyncio.gather(play("official"), play("ours"))
        assert official == ours
        return ours

    async def task(self, which: str, *, send_status: bool = False) -> Task:
        self.count += 1
        client = ClientSide(self.root / f"{self.count}-{which}", os.getpid())
        task = Task(which, client, await self.start(which, client.slot, send_status))
        assert await task.answer() == "ready"
        return task

    async def start(self, which: str, slot: Path, send_status: bool = False) -> Process:
        program = ("-m", "tests.integration.boinc_api.program", which)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            *(["--send-status"] if send_status else []),
            cwd=slot,
            env=os.environ | {"PYTHONPATH": str(SOURCES)},
            stdin=PIPE,
            stdout=PIPE,
        )
        self.stack.push_async_callback(_end, process)
        return process


class Base:
    """`official.Base`, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def base() -> Iterator[Base]:
    command = [sys.executable, "-m", "tests.integration.boinc_api.official"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=SOURCES, stdin=pipe, stdout=pipe, text=True) as process:
        yield Base(process)
        process.kill()


@pytest_asyncio.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        yield Both(tmp_path, stack)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
