"""Which accelerator a VM gets, decided by running code in it.

/dev/kvm may exist and be of no use: without rights, or without hardware behind it, where every
instruction is emulated a thousand times too slowly. So a few instructions are run (`kvm_probe`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vm_launcher.drivers import kvm_probe
from vm_launcher.drivers.environment import plain_environment

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 2.0
PROBE_COMMAND = "kvm-probe"
LEAST_INSTRUCTIONS_PER_SECOND = 50e6
"""Hardware runs about 10^9, KVM's instruction emulator about 10^6."""

_FIRMWARE = "switch on virtualisation (VT-x, AMD-V or SVM) in the firmware (BIOS) settings"


@dataclass(frozen=True)
class Probe:
    """What became of the attempt to run code under KVM."""

    usable: bool
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Choice:
    """Accelerators to try, in order; empty if the VM cannot run here. `reason` is for people."""

    accelerators: tuple[str, ...]
    reason: str
    remedy: str = ""


def probe_kvm(device: Path = DEVICE, command: Sequence[str] | None = None) -> Probe:
    """Takes at most 2 s. `command` replaces the program that runs the code."""
    if not device.exists():
        return _no_device(device)
    if not os.access(device, os.R_OK | os.W_OK):
        remedy = "sudo adduser $USER kvm, then log in anew"
        return Probe(False, f"no right to use {device}", remedy)
    command = command or (*_probe_program(), str(device))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            env=plain_environment(),
        )
    except subprocess.TimeoutExpired:
        return Probe(False, f"code in {device} did not end within {PROBE_SECONDS:.0f} s")
    except OSError as error:
        return Probe(False, f"the KVM test could not run: {error}")
    return _judge(done.stdout)


def _probe_program() -> tuple[str, ...]:
    if getattr(sys, "frozen", False):  # then there is no interpreter: see deploy/launcher/entry.py
        return (sys.executable, PROBE_COMMAND)
    return (sys.executable, "-I", "-S", kvm_probe.__file__)


def choose(wanted: str, allow_emulation: bool, probe: Probe) -> Choice:
    """`wanted` is auto, kvm or tcg; emulation is tried last, where the host's owner allows it."""
    emulation = ("tcg",) if allow_emulation else ()
    if wanted == "tcg":
        return Choice(("tcg",), "software emulation, as configured")
    if probe.usable:
        return Choice(("kvm", *emulation), probe.reason)
    if wanted == "kvm" or not allow_emulation:
        remedy = probe.remedy or _FIRMWARE
        return Choice((), probe.reason, f"{remedy}; or set allow_emulation = true (slow)")
    return Choice(emulation, f"software emulation, because {probe.reason}", probe.remedy)


def _no_device(device: Path) -> Probe:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    if "vmx" in flags or "svm" in flags:
        return Probe(False, f"{device} is not there", "sudo modprobe kvm_intel || modprobe kvm_amd")
    return Probe(False, f"{device} is not there and the CPU shows no virtualisation", _FIRMWARE)


def _judge(output: bytes) -> Probe:
    try:
        answer = json.loads(output)
        speed, error = answer.get("instructions_per_second"), answer.get("error", "")
    except (ValueError, AttributeError):
        return Probe(False, "the KVM test ended without an answer")
    if not isinstance(speed, int | float):
        return Probe(False, f"code does not run in {DEVICE}: {error}", _FIRMWARE)
    if speed < LEAST_INSTRUCTIONS_PER_SECOND:
        said = (
            f"KVM runs only {speed / 1e6:.1f} million instructions a second, "
            "as if it were emulated itself"
        )
        return Probe(False, said, "run on the bare host, or on a VM with nested virtualisation")
    return Probe(True, f"KVM runs {speed / 1e6:.0f} million instructions a second")
