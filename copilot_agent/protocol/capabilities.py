"""What a pilot can offer."""

from typing import Annotated

from pydantic import FailFast, Field, StringConstraints

from copilot_agent.protocol.base import Line, Wire
from copilot_agent.protocol.job import CpuFlag, Platform, Requirements

Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+_-]{1,64}$")]


class Capabilities(Wire):
    """Slots and features of one pilot; the totals that it gives to jobs, not those of the guest."""

    cores: Annotated[int, Field(ge=0, le=1024)]
    memory_mib: Annotated[int, Field(ge=0, le=1 << 24)]
    disk_mib: Annotated[int, Field(ge=0, le=1 << 28)]
    platform: Platform = "linux/x86_64"
    cpu_flags: Annotated[tuple[CpuFlag, ...], FailFast(), Field(max_length=512)] = ()
    cpu_model: Line = ""
    accelerator: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{0,16}$")] = ""
    agent_version: Version = "0"
    image: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the image's manifest, empty outside a virtual machine."""
    confinement: Annotated[tuple[CpuFlag, ...], FailFast(), Field(max_length=16)] = ()
    """How payloads are kept in: uid, cgroup2, cgroup1, rlimits, no_new_privs."""

    def fits(self, requirements: Requirements) -> bool:
        """Whether one job with these requirements could ever run here."""
        return (
            requirements.cores <= self.cores
            and requirements.memory_mib <= self.memory_mib
            and requirements.disk_mib <= self.disk_mib
            and requirements.platform == self.platform
            and set(requirements.cpu_flags) <= set(self.cpu_flags)
        )
