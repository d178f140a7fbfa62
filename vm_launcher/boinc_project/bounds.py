"""What a task may take of a volunteer's PC, as a workunit states it."""

from dataclasses import dataclass

from vm_launcher.boinc.task_settings import TaskSettings
from vm_launcher.drivers.qemu.command import OWN_MIB, TB_SIZE_MIB

MIB = 1 << 20
_LAUNCHER_MIB = 64
_UNPACKED_MIB = 2 * 48
"""The launcher in its slot; twice, because one that was killed is removed by the next."""
_LOGS_MIB = 64
_SLACK_MIB = 256
"""For file systems and formats: a full scratch disk is larger than what it holds."""

_FLOPS = 3e9
"""Of one core, for the estimate before the first progress is known."""
_MARGIN = 100
"""The client ends tasks by this bound, earlier on faster PCs; ours end themselves before."""
_DAY = 86400


@dataclass(frozen=True)
class Bounds:
    """Bytes, floating-point operations and seconds."""

    memory: int
    disk: int
    fpops_estimate: float
    fpops_bound: float
    delay: int
    """From sending the task to the report that is still welcome."""
    hours_a_day: float
    """On for so long, a PC reports in time."""


def bounds(settings: TaskSettings) -> Bounds:
    vm, task = settings.vm, settings.task
    hypervisor = vm.memory_mib + OWN_MIB + TB_SIZE_MIB
    disk = vm.disk_mib + hypervisor + _UNPACKED_MIB + _LOGS_MIB + _SLACK_MIB
    longest = task.task_seconds + task.grace_seconds + task.idle_end_seconds
    # a PC that computes for a few hours a day is welcome
    delay = max(7 * _DAY, 7 * longest)
    return Bounds(
        memory=(hypervisor + _LAUNCHER_MIB) * MIB,
        disk=disk * MIB,
        fpops_estimate=task.task_seconds * vm.cpus * _FLOPS,
        fpops_bound=longest * vm.cpus * _FLOPS * _MARGIN,
        delay=delay,
        hours_a_day=24 * longest / delay,
    )


def longest_trickle(settings: TaskSettings) -> int:
    """CPU seconds that one trickle may claim: those of all jobs may come at the task's end."""
    task = settings.task
    return (task.task_seconds + task.grace_seconds) * settings.vm.cpus
