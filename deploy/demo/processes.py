"""The demo's processes: started by name, logged, stopped by the handle that was kept."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError

TOOLS = Path(sys.executable).parent
"""Our own programs lie beside the interpreter."""


class Process:
    """A program of ours with its log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def check(self) -> None:
        """Raises CopilotError with the end of the log if the program has ended."""
        if not self.running:
            raise CopilotError(
                f"{self.name} ended with code {self._process.returncode}: {self.last_words()}",
                remedy=f"see {self.log}",
            )

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL to this process alone, and wait until it is gone."""
        if self.running:
            self._process.kill()
            await self._process.wait()

    async def stop(self, seconds: float = 20.0) -> None:
        """SIGTERM; after `seconds` SIGKILL to its whole process group."""
        if self.running:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), seconds)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()


@asynccontextmanager
async def program(name: str, argv: Sequence[str], log: Path) -> AsyncIterator[Process]:
    """Run a program in its own process group for as long as the block lasts.

    Ctrl-C at the terminal reaches only the demo, which then stops its programs in order.
    """
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    handle = Process(name, process, log)
    try:
        yield handle
    finally:
        await handle.stop()


async def call(argv: Sequence[str]) -> str:
    """Run a program to its end; returns its output. Raises CopilotError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await process.communicate()
    if process.returncode:
        raise CopilotError(f"{Path(argv[0]).name} failed: {complaint.decode(errors='replace')}")
    return output.decode()


async def appear(path: Path, process: Process, seconds: float = 30.0) -> str:
    """Wait until `path` has content; returns it. Raises CopilotError if `process` ends first."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (path.is_file() and path.stat().st_size):
        process.check()
        if asyncio.get_running_loop().time() > deadline:
            raise CopilotError(f"{process.name} is not ready after {seconds:.0f} s")
        await asyncio.sleep(0.05)
    return path.read_text().strip()
