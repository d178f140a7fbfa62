"""QEMU's command line for a `VmSpec`: pure, so that it can be compared and tested.

QEMU is handed open descriptors and no paths: it needs no right on any directory, opens exactly
what the launcher has checked, and two starts differ in nothing but numbers.
"""

import hashlib
from dataclasses import dataclass

from copilot_agent.protocol.guest import CTRL_PORT, NET_PORT
from vm_launcher.drivers.base import VmSpec
from vm_launcher.drivers.qemu import clock

MACHINE = "pc-q35-7.2"
"""Pinned: a saved state only fits the machine that it was made on."""

TB_SIZE_MIB = 64
"""QEMU's cache of translated code under TCG; it counts as memory of the VM."""

OWN_MIB = 64
"""What QEMU takes besides, under any accelerator."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Descriptors:
    """Numbers of the open files that QEMU inherits."""

    kernel: int
    initrd: int
    disks: tuple[int, ...]
    scratch: int
    qmp: int
    serial: int
    ctrl: int
    net: int


def build(
    spec: VmSpec, files: Descriptors, token: str, incoming: bool, tsc_khz: int | None
) -> list[str]:
    """Arguments after the program's name.

    `token` marks the process; `incoming` awaits a state; `tsc_khz` is the host's (see clock.py).
    """
    return [
        *_machine(spec, token),
        *_control(files),
        *_disks(spec, files),
        *_ports(files),
        *["-kernel", f"/dev/fd/{files.kernel}", "-initrd", f"/dev/fd/{files.initrd}"],
        *["-append", _kernel_parameters(spec, tsc_khz)],
        *(["-incoming", "defer", "-S"] if incoming else []),
    ]


def fingerprint(spec: VmSpec, qemu_version: str) -> dict[str, str]:
    """What must be equal for a saved state to be usable, by a name for people.

    The guest's clock is no part of it: its rate is measured anew at each start.
    """
    nothing = Descriptors(0, 0, (0,) * len(spec.disks), 0, 0, 0, 0, 0)
    command = "\0".join(build(spec, nothing, "", incoming=False, tsc_khz=None))
    return {
        "QEMU version": qemu_version,
        "machine type": MACHINE,
        "command line": hashlib.sha256(command.encode()).hexdigest(),
        "image": spec.image_sha256,
    }


def memory_bound_mib(spec: VmSpec) -> int:
    """What the host must have: the guest's memory, QEMU itself, its translation cache."""
    return spec.memory_mib + OWN_MIB + (TB_SIZE_MIB if spec.accelerator == "tcg" else 0)


def _machine(spec: VmSpec, token: str) -> list[str]:
    return [
        *["-name", f"guest={spec.name}", "-uuid", token],
        *["-machine", f"{MACHINE},usb=off,vmport=off", *_accelerator(spec)],
        *["-smp", str(spec.cores), "-m", str(spec.memory_mib)],
        *["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
        *["-sandbox", SANDBOX],
    ]


def _accelerator(spec: VmSpec) -> list[str]:
    if spec.accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", f"tcg,thread=multi,tb-size={TB_SIZE_MIB}", "-cpu", "max"]


def _kernel_parameters(spec: VmSpec, tsc_khz: int | None) -> str:
    if spec.accelerator == "kvm":
        return spec.command_line
    return f"{spec.command_line} {clock.kernel_parameters(tsc_khz)}"


def _control(files: Descriptors) -> list[str]:
    return [
        *["-chardev", f"socket,id=qmp,fd={files.qmp}", "-mon", "chardev=qmp,mode=control"],
        *["-chardev", f"socket,id=serial,fd={files.serial}", "-serial", "chardev:serial"],
        *["-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,rng=random"],
    ]


def _disks(spec: VmSpec, files: Descriptors) -> list[str]:
    arguments = []
    for number, (disk, descriptor) in enumerate(zip(spec.disks, files.disks, strict=True), start=1):
        node = f"disk{number}"
        arguments += ["-add-fd", f"fd={descriptor},set={number}"]
        arguments += ["-blockdev", _file(f"{node}-file", number) + ",read-only=on"]
        arguments += ["-blockdev", f"driver=raw,node-name={node},file={node}-file,read-only=on"]
        arguments += ["-device", f"virtio-blk-pci,drive={node},serial={disk.serial}"]
    return arguments + _scratch(files.scratch, len(spec.disks) + 1)


def _scratch(descriptor: int, number: int) -> list[str]:
    # Thrown away after a crash in any case, so QEMU need not flush; `save` does it once.
    quick = "cache.no-flush=on,discard=unmap"
    return [
        *["-add-fd", f"fd={descriptor},set={number}"],
        *["-blockdev", f"{_file('scratch-file', number)},{quick}"],
        *["-blockdev", f"driver=qcow2,node-name=scratch,file=scratch-file,{quick}"],
        *["-device", "virtio-blk-pci,drive=scratch,serial=scratch"],
    ]


def _file(node: str, number: int) -> str:
    return f"driver=file,node-name={node},filename=/dev/fdset/{number}"


def _ports(files: Descriptors) -> list[str]:
    arguments = ["-device", "virtio-serial-pci,max_ports=4"]
    for name, descriptor, port in (("ctrl", files.ctrl, CTRL_PORT), ("net", files.net, NET_PORT)):
        arguments += ["-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off"]
        arguments += ["-device", f"virtserialport,id={name},chardev={name},name={port}"]
    return arguments
