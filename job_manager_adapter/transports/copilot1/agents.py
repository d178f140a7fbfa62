"""Which original agent is which pilot: enrolled once by the manager, on the agent's behalf."""

import asyncio
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.enrolment import EnrolRequest, enrolment_statement
from job_manager_adapter.core.copilot1.names import Names
from job_manager_adapter.files.durable import private_directory, write_file
from job_manager_adapter.services.context import base64url
from job_manager_adapter.services.enrolments import Enrolments
from job_manager_adapter.services.pilots import Pilots

MAX_KNOWN = 100_000
"""Pilots that are remembered to be somebody's, or nobody's."""


class Agents:
    """Remembers pilots in files that all managers with the same keys share.

    A file that is lost costs the agent a new pilot; what it held is released uncharged then.
    """

    def __init__(self, folder: Path, names: Names, pilots: Pilots, enrolments: Enrolments) -> None:
        self._folder = private_directory(folder)
        self._names = names
        self._pilots = pilots
        self._enrolments = enrolments
        self._jids: dict[str, str | None] = {}
        """By pilot; None for those that stand for themselves."""

    def pilot(self, agent: str) -> str | None:
        """The pilot that stands for the agent with this bare address, if there was one."""
        try:
            return str(json.loads(self._path(agent).read_bytes())["pilot"])
        except (OSError, ValueError, KeyError):
            return None

    async def enrol(self, agent: str, capabilities: Capabilities) -> str:
        """A new pilot for it. Raises CopilotError, such as for a banned host."""
        secret = self._names.secret(agent)
        await self._enrolments.ensure(secret, label=f"copilot1 {agent}"[:200])
        launcher = Ed25519PrivateKey.from_private_bytes(self._names.seed("launcher", agent))
        key = base64url(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
        statement = enrolment_statement(hashlib.sha256(secret.encode()).hexdigest(), key)
        request = EnrolRequest(
            secret=secret,
            launcher_key=base64url(launcher.public_key().public_bytes_raw()),
            pilot_key=key,
            signature=base64url(launcher.sign(statement)),
            capabilities=capabilities,
        )
        enrolled = await self._pilots.enrol(request)
        note = json.dumps({"agent": agent, "pilot": enrolled.pilot}).encode()
        await asyncio.to_thread(write_file, self._path(agent), note)
        self._jids[enrolled.pilot] = agent
        return enrolled.pilot

    async def agent_of(self, pilot: str) -> str | None:
        """None for a pilot that stands for itself."""
        if len(self._jids) > MAX_KNOWN:
            self._jids.clear()
        if pilot not in self._jids:  # an agent's file is there before its pilot gets a lease
            self._jids.update(await asyncio.to_thread(self._read))
        return self._jids.setdefault(pilot, None)

    def _read(self) -> dict[str, str]:
        found = {}
        for path in self._folder.glob("*.json"):
            with suppress(OSError, ValueError, KeyError):
                note = json.loads(path.read_bytes())
                found[str(note["pilot"])] = str(note["agent"])
        return found

    def _path(self, agent: str) -> Path:
        return self._folder / f"{hashlib.sha256(agent.encode()).hexdigest()}.json"
