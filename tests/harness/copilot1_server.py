"""The XMPP server of Co-Pilot 1, started from `deploy/prosody/copilot1.cfg.lua` on a free port."""

import asyncio
import secrets
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from copilot_agent.xmpp.client import Login
from tests.harness.programs import eventually
from tests.harness.xmpp import DEPLOY, START_SECONDS, XmppServer

DOMAIN = "copilot.test"
CONFERENCE = f"conference.{DOMAIN}"


class Copilot1Server(XmppServer):
    """A Prosody with one virtual host, ordinary accounts and a chat service."""

    name = "prosody"

    def __init__(
        self, folder: Path, *, tls_required: bool = True, services: Sequence[str] = ()
    ) -> None:
        """`services` are names of accounts that agents reach; without any, everybody is reached."""
        super().__init__(folder)
        self.services = services
        self.tls_required = tls_required
        self.passwords: dict[str, str] = {}
        """Of the accounts, by their bare address."""

    async def _configure(self, values: dict[str, str]) -> None:
        (self.folder / "certs").mkdir()  # it looks for certificates of other names there
        modules = self.folder / "modules"
        shutil.copytree(DEPLOY / "prosody" / "modules", modules)
        more = {
            "MODULES": str(modules),
            "SERVICES": ", ".join(f'"{name}@{DOMAIN}"' for name in self.services),
            "DOMAIN": DOMAIN,
            "STATE": str(self.folder / "state"),
            "RUN": str(self.folder),
            "TLS_REQUIRED": "true" if self.tls_required else "false",
        }
        self._config = self._fill("copilot1.cfg.lua", values | more)

    def _command(self) -> tuple[str, ...]:
        return ("/usr/bin/prosody", "-F", "--config", str(self._config))

    async def start(self) -> None:
        """Returns once clients are answered."""
        self._process = self._spawn()
        answers = partial(self._answers, self.c2s_port, "jabber:client")
        await eventually(answers, START_SECONDS, self.name)

    async def account(self, name: str) -> str:
        """Makes one, also while the server runs; its bare address, once for each name."""
        jid = f"{name}@{DOMAIN}"
        if jid not in self.passwords:
            password = secrets.token_hex(8)
            words = ("--config", str(self._config), "register", name, DOMAIN, password)
            adding = await asyncio.create_subprocess_exec(
                *("/usr/bin/prosodyctl", *words),
                **self._identity(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.folder,
            )
            said, _ = await adding.communicate()
            assert adding.returncode == 0, said.decode()
            self.passwords[jid] = password
        return jid

    async def login(self, name: str, resource: str = "") -> Login:
        """To log in with TLS as `name`, whose account is made if there is none."""
        jid = await self.account(name)
        tls = ssl.create_default_context(cafile=self.authority.file)
        resource = resource or secrets.token_hex(16)
        return Login(jid, self.passwords[jid], resource, "127.0.0.1", self.c2s_port, tls)

    def room(self, nick: str, name: str = "copilot") -> str:
        """A seat in a chat room, as `Account` wants it."""
        return f"{name}@{CONFERENCE}/{nick}"


@asynccontextmanager
async def copilot1_server(
    *, tls_required: bool = True, services: Sequence[str] = ()
) -> AsyncIterator[Copilot1Server]:
    """A running server; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="copilot1-prosody-"))
    server = Copilot1Server(folder, tls_required=tls_required, services=services)
    try:
        await server.make(DOMAIN)
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder)
