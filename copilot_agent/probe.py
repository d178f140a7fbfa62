"""What this computer, or this guest, can offer."""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.version import VERSION

MIB = 1 << 20
AGENT_MIB = 128
"""Kept back for the agent where nobody says how much memory jobs may have."""
SPARE_DISK_MIB = 256
"""Left for logs and staged inputs."""
_CPUINFO_BYTES = 1 << 16
_FLAG = re.compile(r"^[a-z0-9_]{1,24}$")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Given:
    """What somebody has decided; None where the probe is to find out."""

    cores: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    accelerator: str = ""
    image: str = ""


def probe(
    scratch: Path,
    confinement: tuple[str, ...],
    given: Given,
    *,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    meminfo: Path = Path("/proc/meminfo"),
) -> Capabilities:
    """Offers no more disk than there is, whatever is given."""
    free_mib = max(0, _free_mib(scratch) - SPARE_DISK_MIB)
    flags, model = _cpu(cpuinfo)
    return Capabilities(
        cores=given.cores or len(os.sched_getaffinity(0)),
        memory_mib=given.memory_mib or max(0, _memory_mib(meminfo) - AGENT_MIB),
        disk_mib=min(given.disk_mib or free_mib, free_mib),
        platform=_platform(),
        cpu_flags=flags,
        cpu_model=model,
        accelerator=given.accelerator,
        agent_version=VERSION,
        image=given.image,
        confinement=confinement,
    )


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{platform.system().lower()}/{_MACHINES.get(machine, machine)}"


def _cpu(path: Path) -> tuple[tuple[str, ...], str]:
    """Flags and model of the first CPU."""
    try:
        with path.open("rb") as file:
            text = file.read(_CPUINFO_BYTES).decode("utf-8", "replace")
    except OSError:
        return (), ""
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    words = (fields.get("flags") or fields.get("Features") or "").split()
    flags = sorted({word for word in words if _FLAG.match(word)})[:512]
    model = "".join(char for char in fields.get("model name", "") if char.isprintable())
    return tuple(flags), model[:200]


def _memory_mib(path: Path) -> int:
    for line in path.read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def _free_mib(scratch: Path) -> int:
    return shutil.disk_usage(scratch).free // MIB
