"""Debian's ejabberd, with our module, and an Erlang node that listens on loopback only."""

import asyncio
import base64
import json
from pathlib import Path

from tests.harness.programs import free_port
from tests.harness.xmpp import DEPLOY, XmppServer

_CONTROL = Path("/usr/sbin/ejabberdctl")
_ONLY_ITS_USER = "INSTALLUSER=ejabberd"
_AS_A_CHILD = 'as_current_user) "$@" ;;'


class Ejabberd(XmppServer):
    """Started by its own ejabberdctl with the settings in `deploy`."""

    name = "ejabberd"

    async def _configure(self, values: dict[str, str]) -> None:
        modules = self.folder / "modules"
        modules.mkdir()
        await _compile(DEPLOY / "ejabberd" / "mod_copilot.erl", modules)
        key = self._private("access.jwk", json.dumps(_jwk(self.key)).encode())
        self._node_port = free_port()
        more = {
            "MODULES": str(modules),
            "TOKEN_JWK": str(key),
            "NODE": f"copilot-{self._node_port}@localhost",
            "NODE_PORT": str(self._node_port),
        }
        (self.folder / "inetrc").write_text('{host, {127,0,0,1}, ["localhost"]}.\n')
        self._config = self._fill("ejabberd.yml", values | more)
        self._settings = self._fill("ejabberdctl.cfg", values | more)
        self._control = self.folder / "ejabberdctl"
        self._control.write_text(_anybodys(_CONTROL.read_text()))

    def _command(self) -> tuple[str, ...]:
        return (
            *("/bin/bash", str(self._control)),
            *("--config", str(self._config), "--ctl-config", str(self._settings)),
            *("--config-dir", str(self.folder), "--logs", str(self.folder / "logs")),
            *("--spool", str(self.folder / "state"), "foreground"),
        )


def _anybodys(control: str) -> str:
    """ejabberdctl for whoever runs the tests, and as the server itself instead of its parent."""
    assert control.count(_ONLY_ITS_USER) == 1
    assert control.count(_AS_A_CHILD) == 1
    control = control.replace(_ONLY_ITS_USER, "INSTALLUSER=")
    return control.replace(_AS_A_CHILD, 'as_current_user) exec "$@" ;;')


def _jwk(key: bytes) -> dict[str, str]:
    return {"kty": "oct", "k": base64.urlsafe_b64encode(key).rstrip(b"=").decode()}


async def _compile(source: Path, folder: Path) -> None:
    compiler = await asyncio.create_subprocess_exec(
        *("erlc", "-pa", *_ejabberds_own(), "-Werror", "-o", str(folder), str(source)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await compiler.communicate()
    assert compiler.returncode == 0, output.decode()


def _ejabberds_own() -> list[str]:
    """Where its behaviours are described, for the compiler."""
    (found,) = Path("/usr/lib").glob("*/ejabberd-23.01/ebin")
    return [str(found)]
