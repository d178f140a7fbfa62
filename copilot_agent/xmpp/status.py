"""A computer's status in the words of the original: `key=value####`, columns joined by `::::`.

The keys are those of the original's Heartbeat plugin, whose tool makes a table of whatever keys
come. It took them from `uptime`, `df`, `free` and `ps ux`.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from copilot_agent.protocol.copilot1.job_data import JobData, job_data_text
from copilot_agent.xmpp import computer
from copilot_agent.xmpp.computer import Disk, Load, Memory, Process

_STRANGE = re.compile(r"[^A-Za-z0-9 !%()*+,./:=@\[\]_~-]|:(?![0-9])|(?<![0-9]):")
"""A colon stands between digits, or it could be taken for one of those between values."""
_WORD = 128

Row = Mapping[str, str]


def load_text(load: Load) -> str:
    one, five, fifteen = (f"{value:.2f}" for value in load.minutes)
    return job_data_text(JobData({"1min": one, "5min": five, "15min": fifteen}))


def disks_text(disks: Sequence[Disk]) -> str:
    return _columns([_disk(disk) for disk in disks])


def _disk(disk: Disk) -> Row:
    return {
        "path": disk.device,
        "mountpoint": disk.mounted_on,
        "totalBlocks": f"{disk.total}M",  # the original cuts the unit off the others only
        "used": str(disk.used),
        "available": str(disk.available),
        "used%": f"{disk.percent}%",
    }


def memory_text(memory: Sequence[Memory]) -> str:
    """The original's own is empty where `free` no longer knows the option that it uses."""
    rows = ((part.name, part.used, part.available) for part in memory)
    return _columns(
        [{"memory": name, "used": str(used), "available": str(left)} for name, used, left in rows]
    )


def processes_text(processes: Sequence[Process]) -> str:
    return _columns([_process(process) for process in processes])


def _process(process: Process) -> Row:
    minutes, seconds = divmod(process.cpu_seconds, 60)
    return {
        "%cpu": f"{process.cpu_percent:.1f}",
        "%mem": f"{process.memory_percent:.1f}",
        "rss": str(process.rss_kib),
        "time": f"{minutes}:{seconds:02}",
        "command": process.name,
    }


def _columns(rows: Sequence[Row]) -> str:
    """A single row's values stand alone, as the original has it."""
    if len(rows) == 1:
        return job_data_text(JobData({key: _word(value) for key, value in rows[0].items()}))
    keys = rows[0] if rows else {}
    return job_data_text(JobData({key: tuple(_word(row[key]) for row in rows) for key in keys}))


def _word(text: str) -> str:
    """Without what separates values, and what no terminal should see; never empty."""
    return _STRANGE.sub("_", text)[:_WORD] or "-"


STATUSES: Mapping[str, Callable[[], str]] = {
    "systemLoad": lambda: load_text(computer.load()),
    "diskUsage": lambda: disks_text(computer.disks()),
    "memoryUsage": lambda: memory_text(computer.memory()),
    "runningProcesses": lambda: processes_text(computer.processes()),
}
"""What `Heartbeat:getStatus` may ask for. They raise OSError and ValueError."""


def status_of(component: str) -> str:
    """Empty, as in the original, for what cannot be found out. Raises KeyError if not known."""
    read = STATUSES[component]
    try:
        return read()
    except (OSError, ValueError):
        return ""
