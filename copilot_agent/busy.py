"""How busy this computer's processors have been, by its own clock."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Since the start, of all processors together: all but idle, waiting for a disk, and stolen.

    Not the sum of user and system time: that counts timer ticks, of which a guest misses most while
    its host lets it rest. The scheduler's accounts, which payloads are measured by, go by the clock
    as idle time does. Time that a hypervisor says it has stolen is in none of them.
    """
    processors, idle = 0, 0
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name == "cpu":
            idle = int(fields[3]) + int(fields[4]) + int(fields[7])
        elif name.startswith("cpu"):
            processors += 1
    return max(0.0, processors * time.clock_gettime(time.CLOCK_MONOTONIC) - idle / _TICKS)
