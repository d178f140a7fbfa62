"""What all stand-ins of a manager have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.copilot1.machine import Machine
from job_manager_adapter.core.copilot1.names import Names
from job_manager_adapter.services.files import FileService
from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.transports.copilot1.agents import Agents
from job_manager_adapter.transports.copilot1.chirp import ChirpRoot
from job_manager_adapter.transports.copilot1.intake import Intake


@dataclass(frozen=True)
class Terms:
    """What original agents are taken for, and how long is waited for them; seconds."""

    experiments: frozenset[str]
    chirp_address: str
    heartbeat: float
    cores: int = 1
    memory_mib: int = 2048
    disk_mib: int = 10240
    platform: str = "linux/x86_64"
    offer: float = 20.0
    job: float = 86400.0
    gone: float = 900.0
    restart: float = 30.0

    def capabilities(self, machine: Machine) -> Capabilities:
        """What the agent says of its machine; what it does not say is as configured."""
        disk_kib = machine.free_disk_kib
        system, _, processor = machine.platform.lower().partition("-")
        platform = f"{system}/{processor}"
        known = processor.isascii() and processor.replace("_", "").isalnum() and system.isalpha()
        return Capabilities(
            cores=self.cores,
            memory_mib=min(machine.memory_mib or self.memory_mib, 1 << 24),
            disk_mib=min(disk_kib // 1024 if disk_kib else self.disk_mib, 1 << 28),
            platform=platform if known and len(platform) <= 40 else self.platform,
            agent_version="1",
        )


@dataclass(frozen=True)
class Desk:
    """What all stand-ins of a manager work with."""

    terms: Terms
    pilots: Pilots
    agents: Agents
    names: Names
    files: FileService
    chirp: ChirpRoot
    intake: Intake
    now: Callable[[], float]
    """Unix time."""
