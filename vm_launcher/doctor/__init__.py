"""`vm-launcher doctor`: can a VM run here, and if not, what is to be done?"""

from vm_launcher.doctor.base import Check, Finding, Level, Question
from vm_launcher.doctor.host import (
    AcceleratorCheck,
    DiskSpace,
    Hypervisor,
    Memory,
    QemuImg,
    StateWritable,
)
from vm_launcher.doctor.outside import ImageCheck, ManagerReachable

CHECKS: tuple[Check, ...] = (
    Hypervisor(),
    QemuImg(),
    AcceleratorCheck(),
    Memory(),
    DiskSpace(),
    StateWritable(),
    ImageCheck(),
    ManagerReachable(),
)

__all__ = ["CHECKS", "Check", "Finding", "Level", "Question"]
