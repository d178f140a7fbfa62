"""A real Chirp server (Debian's coop-computing-tools) on a free port of loopback."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.harness.programs import eventually, free_port

ANYBODY = "address:*"


class ChirpServer:
    """`root` is what it serves; it may be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.port = free_port()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        for each in (self.root, folder / "transient"):
            each.mkdir()
            self._give(each)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self) -> set[str]:
        """What lies in the root, hidden files apart."""
        return {path.name for path in self.root.iterdir() if not path.name.startswith(".")}

    def directory(self, name: str, rights: str = "rwl", subject: str = ANYBODY) -> Path:
        """A new one at the top, with these rights for all who come by address."""
        made = self.root / name
        made.mkdir()
        (made / ".__acl").write_text(f"{subject} {rights}\n")
        self._give(made, made / ".__acl")
        return made

    def put(self, directory: Path, name: str, content: bytes) -> Path:
        path = directory / name
        path.write_bytes(content)
        self._give(path)
        return path

    def _give(self, *paths: Path) -> None:
        if self._user is not None:
            for path in paths:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    async def start(self) -> None:
        """Returns once it listens."""
        self._process = self._spawn()
        await eventually(self._listens, what="the Chirp server listens")

    def _spawn(self) -> subprocess.Popen[bytes]:
        safe = ("-i", "nobody") if self._user else ()
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                (
                    *("/usr/bin/chirp_server", "-r", str(self.root)),
                    *("-I", "127.0.0.1", "-p", str(self.port), "-a", "address"),
                    *("-y", str(self.folder / "transient")),
                    *("-u", "127.0.0.1:9", "-U", "1d", "-n", "chirp.test"),  # no catalog
                    *("-d", "chirp", "-d", "login", "-E"),
                    *safe,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"chirp_server ended:\n{self.said}"
        return _accepts(self.port)

    @property
    def said(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    async def stop(self) -> None:
        """With everybody it serves."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _accepts(port: int) -> bool:
    needle = f":{port:04X} 00000000:0000 0A"
    return needle in Path("/proc/net/tcp").read_text()


@asynccontextmanager
async def chirp_server() -> AsyncIterator[ChirpServer]:
    folder = Path(tempfile.mkdtemp(prefix="copilot-chirp-"))
    folder.chmod(0o711)
    server = ChirpServer(folder)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder)
