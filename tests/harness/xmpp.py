"""The XMPP servers that pilots use, started from the very files in `deploy`, on free ports.

Each lies in a temporary directory of its own and runs as the unprivileged user of its Debian
package, or as whoever runs the tests. What it writes goes into logs there.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, ClassVar

from tests.harness.certificates import Authority
from tests.harness.programs import alive, eventually, free_port
from tests.harness.sockets import Listener, family, listeners

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DOMAIN = "pilots.test"
MANAGERS = ("manager-1.test", "manager-2.test")
START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class XmppServer:
    """One server. `start` and `stop` may be called again and again, the ports stay."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = secrets.token_bytes(32)
        """The manager's key, which signs access tokens."""
        self.secret = secrets.token_hex(16)
        """What a manager's component says to be let in."""
        self.c2s_port, self.component_port = free_port(), free_port()
        self.authority = Authority(folder / "authority.pem")
        self._user = pwd.getpwnam(self.name) if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    async def make(self, certified: str = DOMAIN) -> None:
        """Writes configuration, keys and a certificate for the host name `certified`."""
        for directory in ("state", "logs"):
            (self.folder / directory).mkdir(mode=0o700)
        certificate, key = self.authority.server(self.folder, certified)
        await self._configure(
            {
                "DOMAIN": DOMAIN,
                "COMPONENTS": ", ".join(f'"{name}"' for name in MANAGERS),
                "COMPONENT_SECRET": self.secret,
                "C2S_ADDRESS": "127.0.0.1",
                "C2S_PORT": str(self.c2s_port),
                "COMPONENT_PORT": str(self.component_port),
                "CERTIFICATE": str(certificate),
                "CERTIFICATE_KEY": str(key),
            }
        )
        self._give(self.folder, *self.folder.rglob("*"))

    async def _configure(self, values: dict[str, str]) -> None:
        raise NotImplementedError

    def _command(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _fill(self, template: str, values: dict[str, str]) -> Path:
        """The filled-in copy of a file of this server's in `deploy`."""
        text = (DEPLOY / self.name / template).read_text()
        return self._private(template, Template(text).substitute(values).encode())

    def _private(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    def _give(self, *paths: Path) -> None:
        if self._user is not None:
            for path in paths:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    async def start(self) -> None:
        """Returns once pilots and managers are answered."""
        self._process = self._spawn()
        ports = ((self.c2s_port, "jabber:client"), (self.component_port, "jabber:component:accept"))
        for port, namespace in ports:
            await eventually(partial(self._answers, port, namespace), START_SECONDS, self.name)

    def _spawn(self) -> subprocess.Popen[bytes]:
        log = self.folder / "logs" / f"output-{len(list(self.folder.glob('logs/output-*')))}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                self._command(),
                **self._identity(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
                start_new_session=True,
            )

    async def _answers(self, port: int, namespace: str) -> bool:
        """That a port accepts is not enough: ejabberd's do before it has loaded its modules."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended:\n{self.said}"
        with suppress(OSError, TimeoutError):
            return await asyncio.wait_for(_greeting(port, namespace), 5) != b""
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it has logged."""
        logs = sorted(self.folder.glob("logs/*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    @property
    def listeners(self) -> list[Listener]:
        """Everything on which it and its helpers listen."""
        return listeners(family(self.pid))

    async def stop(self, how: int = signal.SIGTERM) -> None:
        """SIGTERM lets it say good-bye to its clients; SIGKILL is a crash."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        helpers = family(process.pid)
        process.send_signal(how)
        try:
            await eventually(lambda: process.poll() is not None, _STOP_SECONDS, f"{self.name} ends")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        await eventually(lambda: not any(map(alive, helpers)), what=f"{self.name} is gone")


class Prosody(XmppServer):
    """Debian's Prosody, with our modules."""

    name = "prosody"

    async def _configure(self, values: dict[str, str]) -> None:
        (self.folder / "certs").mkdir()  # it looks for certificates of other names there
        modules = self.folder / "modules"
        shutil.copytree(DEPLOY / "prosody" / "modules", modules)
        more = {
            "MODULES": str(modules),
            "STATE": str(self.folder / "state"),
            "RUN": str(self.folder),
            "TOKEN_KEY": str(self._private("access.key", self.key)),
        }
        self._config = self._fill("prosody.cfg.lua", values | more)

    def _command(self) -> tuple[str, ...]:
        return ("/usr/bin/prosody", "-F", "--config", str(self._config))


async def _greeting(port: int, namespace: str) -> bytes:
    """The beginning of what it says to somebody who opens a stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"<stream:stream to='{DOMAIN}' version='1.0' xmlns='{namespace}' "
            "xmlns:stream='http://etherx.jabber.org/streams'>".encode()
        )
        return await reader.read(1)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def running(kind: type[XmppServer], certified: str = DOMAIN) -> AsyncIterator[XmppServer]:
    """A running server; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"copilot-{kind.name}-"))
    server = kind(folder)
    try:
        await server.make(certified)
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder)
