"""A launcher's status in words."""

from vm_launcher.core.states import State
from vm_launcher.state import Status

_MIB = 1 << 20


def status_lines(status: Status) -> list[str]:
    running = f"launcher pid {status.pid}" if status.pid else "no launcher runs"
    lines = [
        f"VM         {status.state}{', finishing' if _finishing(status) else ''} ({running})",
        f"speed      {status.accelerator or 'unknown'}: {status.accelerator_reason}",
        f"limits     {status.cpus} CPU at {status.cpu_percent} %, {status.memory_mib} MiB memory, "
        f"{status.disk_mib} MiB disk",
        f"used       {status.cpu_seconds:.0f} s CPU, {status.memory_bytes / _MIB:.0f} MiB memory, "
        f"{status.disk_bytes / _MIB:.0f} MiB disk",
        f"pilot      {status.pilot or 'not enrolled'} {status.guest_state} {status.guest_message}",
        f"jobs       {status.jobs_running} running, {status.jobs_succeeded} succeeded, "
        f"{status.jobs_failed} failed",
        *_jobs(status),
        f"network    {status.network.get('bytes_in', 0)} bytes in, "
        f"{status.network.get('bytes_out', 0)} bytes out, "
        f"{_count(status.network.get('refused', 0), 'connection')} refused",
        f"credit     {status.credit_granted:.2f} from {_count(status.receipts, 'receipt')}",
    ]
    if status.message:
        lines.append(f"ended      {status.outcome}: {status.message}")
    return [_printable(line).rstrip() for line in lines]


def _finishing(status: Status) -> bool:
    """Not when it has finished."""
    return status.finishing and status.state != State.GONE


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _printable(line: str) -> str:
    """The guest chose some of the words; no terminal is to obey them."""
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def _jobs(status: Status) -> list[str]:
    lines = []
    for job in status.jobs:
        fraction = job.get("fraction")
        part = f"{100 * fraction:.0f} %" if isinstance(fraction, float) else ""
        lines.append(
            f"           {job.get('experiment', '')} {job.get('name', '')} {part}".rstrip()
        )
    return lines
