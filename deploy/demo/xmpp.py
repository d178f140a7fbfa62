"""A Prosody of the demo's own, from the files that operators use, with a throw-away certificate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.xmpp import Prosody, joined, running


@dataclass(frozen=True)
class Door:
    settings: str
    """The manager's, as TOML."""
    launcher_options: tuple[str, ...]


@asynccontextmanager
async def prosody(work: Path) -> AsyncIterator[Door]:
    """Runs while entered; the manager's data directory is `work`/manager."""
    async with running(Prosody) as server:
        certificates = work / "authority.pem"
        certificates.write_text(server.authority.file.read_text())
        yield Door(
            settings=joined(server, work / "manager", work / "component.secret"),
            launcher_options=(
                *("--xmpp", f"localhost:{server.c2s_port}", "--ca-file", str(certificates)),
            ),
        )
