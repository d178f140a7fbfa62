"""Describes this guest to original managers, as their own agents do."""

import os
import shutil
import socket
from pathlib import Path

from copilot_agent.protocol.copilot1.machine import Machine

MEMINFO = Path("/proc/meminfo")


def host_name() -> str:
    return socket.gethostname()[:200]


def machine(scratch: Path, meminfo: Path = MEMINFO) -> Machine:
    """As of now. Zero counts as unknown, as the originals have it."""
    system, amounts = os.uname(), _amounts(meminfo)
    return Machine(
        host=host_name(),
        platform=f"{system.sysname}-{system.machine}",
        kernel=system.release,
        memory_mib=amounts.get("MemTotal"),
        free_memory_mib=amounts.get("MemFree"),
        swap_mib=amounts.get("SwapTotal"),
        free_swap_mib=amounts.get("SwapFree"),
        free_disk_kib=shutil.disk_usage(scratch).free // 1024,
    )


def _amounts(meminfo: Path) -> dict[str, int]:
    """In MiB, what there is any of."""
    found = {}
    for line in meminfo.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and int(words[0]) >= 1024:
            found[name] = int(words[0]) // 1024
    return found
