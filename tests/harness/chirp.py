"""Debian's chirp_server on a free port, over a directory of the test's own."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.programs import eventually, free_port

USER = "nobody"
"""Where the tests run as root: chirp_server does not like to be that."""


@dataclass
class ChirpServer:
    root: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self) -> set[str]:
        """What lies in the root, hidden files apart."""
        return {path.name for path in self.root.iterdir() if not path.name.startswith(".")}


@asynccontextmanager
async def chirp_server() -> AsyncIterator[ChirpServer]:
    """A running one; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="copilot1-chirp-"))
    folder.chmod(0o755)
    server = ChirpServer(folder / "root", free_port())
    identity: dict[str, Any] = {}
    for path in (server.root, folder / "transient"):
        path.mkdir(mode=0o755)
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(path, user.pw_uid, user.pw_gid)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    argv = ["chirp_server", "-r", str(server.root), "-y", str(folder / "transient"), "-C"]
    argv += ["-I", "127.0.0.1", "-p", str(server.port), "-u", "-", "-a", "address"]
    log = folder / "chirp_server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **identity
        )

    async def answers() -> bool:
        assert process.poll() is None, f"chirp_server ended:\n{log.read_text()}"
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.close()
            return True
        return False

    try:
        await eventually(answers, what="chirp_server answers")
        yield server
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        shutil.rmtree(folder)
