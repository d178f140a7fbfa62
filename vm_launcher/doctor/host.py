"""Checks of this computer: hypervisor, accelerator, memory, disk, directories."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import ClassVar

from copilot_agent.protocol.errors import CopilotError
from vm_launcher.doctor.base import Finding, Level, Question
from vm_launcher.drivers.accelerator import choose, probe_kvm
from vm_launcher.drivers.qemu.command import TB_SIZE_MIB
from vm_launcher.drivers.registry import load_driver

_OWN_MIB = 128
"""QEMU and the launcher themselves."""


class Hypervisor:
    name: ClassVar[str] = "hypervisor"

    def look(self, question: Question) -> Finding:
        try:
            found = asyncio.run(load_driver(question.vm.driver).fingerprint())
        except CopilotError as error:
            return Finding(self.name, Level.FAIL, error.message, error.remedy)
        if found.problem:
            return Finding(self.name, Level.FAIL, found.problem, found.remedy)
        text = f"{found.driver} {found.version}, machine type {found.machine}"
        return Finding(self.name, Level.OK, text)


class QemuImg:
    name: ClassVar[str] = "qemu-img"

    def look(self, question: Question) -> Finding | None:
        if question.vm.driver != "qemu":
            return None
        if shutil.which("qemu-img") is None:
            remedy = "apt install qemu-utils"
            return Finding(self.name, Level.FAIL, "qemu-img is not installed", remedy)
        return Finding(self.name, Level.OK, "installed")


class AcceleratorCheck:
    """Runs code in /dev/kvm; takes up to 2 s."""

    name: ClassVar[str] = "accelerator"

    def look(self, question: Question) -> Finding:
        choice = choose(question.vm.accelerator, question.vm.allow_emulation, probe_kvm())
        if not choice.accelerators:
            return Finding(self.name, Level.FAIL, choice.reason, choice.remedy)
        level = Level.OK if choice.accelerators[0] == "kvm" else Level.WARN
        return Finding(self.name, level, choice.reason, choice.remedy)


class Memory:
    name: ClassVar[str] = "memory"

    def __init__(self, meminfo: Path = Path("/proc/meminfo")) -> None:
        self._meminfo = meminfo

    def look(self, question: Question) -> Finding:
        needed = question.vm.memory_mib + TB_SIZE_MIB + _OWN_MIB
        free = self._available_mib()
        if free is None:
            return Finding(self.name, Level.WARN, "the free memory is not known")
        text = f"{free} MiB available, the VM takes up to {needed} MiB"
        if free < needed:
            remedy = f"close programs, or give the VM less: --memory (at least 256, now {needed})"
            return Finding(self.name, Level.FAIL, text, remedy)
        return Finding(self.name, Level.OK, text)

    def _available_mib(self) -> int | None:
        try:
            for line in self._meminfo.read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) // 1024
        except (OSError, ValueError, IndexError):
            return None
        return None


class DiskSpace:
    name: ClassVar[str] = "disk"

    def look(self, question: Question) -> Finding | None:
        if question.state is None:
            return None
        needed = question.vm.disk_mib + question.vm.memory_mib
        free = shutil.disk_usage(_existing(question.state)).free >> 20
        text = f"{free} MiB free, the VM takes up to {needed} MiB when it is saved"
        if free < needed:
            remedy = "free some space, or give the VM less: --disk, --memory"
            return Finding(self.name, Level.FAIL, text, remedy)
        return Finding(self.name, Level.OK, text)


class StateWritable:
    name: ClassVar[str] = "state directory"

    def look(self, question: Question) -> Finding | None:
        if question.state is None:
            return None
        where = _existing(question.state)
        if not where.is_dir():
            return Finding(self.name, Level.FAIL, f"{where} is no directory", "name another")
        if not os.access(where, os.W_OK | os.X_OK):
            remedy = "name another one with --state, or correct its permissions"
            return Finding(self.name, Level.FAIL, f"{where} is not writable", remedy)
        return Finding(self.name, Level.OK, f"{question.state} can be used")


def _existing(path: Path) -> Path:
    """The path itself, else the nearest parent that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
