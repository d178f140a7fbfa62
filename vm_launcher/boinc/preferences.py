"""How much of the computer a task's VM gets: the project's bounds within the volunteer's."""

from dataclasses import dataclass

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from vm_launcher.boinc.init_data import InitData
from vm_launcher.boinc.task_settings import TaskVm
from vm_launcher.drivers.qemu.command import OWN_MIB, TB_SIZE_MIB

_HYPERVISOR_MIB = OWN_MIB + TB_SIZE_MIB
"""Besides the guest's memory: itself, and its translated code under emulation."""

_LEAST_MEMORY_MIB = 256
_LEAST_BYTES_PER_SECOND = 1024
_MEGA = 1 << 20


class TooLittleMemoryError(CopilotError):
    """The volunteer's preferences leave too little memory for any VM."""

    code = ErrorCode.UNAVAILABLE


@dataclass(frozen=True)
class Bounds:
    cpus: int
    cpu_percent: int
    """Share of each of them."""
    memory_mib: int
    bytes_per_second: int | None
    bytes_per_day: int | None


def bounds(vm: TaskVm, data: InitData, threads: int | None = None) -> Bounds:
    """`threads` is the client's --nthreads. Raises `TooLittleMemoryError`."""
    return Bounds(
        cpus=max(1, min(vm.cpus, threads or int(data.ncpus) or 1)),
        cpu_percent=max(1, round(data.cpu_usage_limit)),
        memory_mib=_memory_mib(vm, data),
        bytes_per_second=_bytes_per_second(data),
        bytes_per_day=_bytes_per_day(data),
    )


def _memory_mib(vm: TaskVm, data: InitData) -> int:
    """The client ends a task that takes more than the volunteer allows."""
    if not data.m_nbytes:
        return vm.memory_mib
    percent = min(data.ram_max_used_busy_pct, data.ram_max_used_idle_pct)
    allowed = int(data.m_nbytes * percent / 100) // _MEGA - _HYPERVISOR_MIB
    if allowed < _LEAST_MEMORY_MIB:
        raise TooLittleMemoryError(
            f"a virtual machine needs {_LEAST_MEMORY_MIB + _HYPERVISOR_MIB} MiB of memory, your "
            f"preferences allow {max(allowed, 0) + _HYPERVISOR_MIB} MiB",
            remedy="allow BOINC more memory (Computing preferences, Disk and memory)",
        )
    return min(vm.memory_mib, allowed)


def _bytes_per_second(data: InitData) -> int | None:
    """One bound for both directions together, so the smaller one."""
    limits = [limit for limit in (data.max_bytes_sec_up, data.max_bytes_sec_down) if limit > 0]
    return max(_LEAST_BYTES_PER_SECOND, int(min(limits))) if limits else None


def _bytes_per_day(data: InitData) -> int | None:
    if not (data.daily_xfer_limit_mb and data.daily_xfer_period_days):
        return None
    return int(data.daily_xfer_limit_mb * _MEGA / data.daily_xfer_period_days)
