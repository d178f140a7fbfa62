"""Runs a few instructions in a virtual CPU of /dev/kvm and tells how fast they went.

A program of its own, started by `accelerator.py` with a time limit: KVM may be there and hang, or
emulate every instruction. Standard library only; prints one line of JSON.

Numbers and structures: Linux, Documentation/virt/kvm/api.rst and arch/x86/include/uapi/asm/kvm.h.
Tried on software KVM (PVM) only, not on hardware KVM.
"""

import fcntl
import json
import mmap
import os
import struct
import sys
import time
from dataclasses import dataclass

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_USER_MEMORY_REGION = 0x4020AE46
_SET_TSS_ADDR = 0xAE47
_RUN = 0xAE80
_SET_REGS = 0x4090AE82
_GET_SREGS = 0x8138AE83
_SET_SREGS = 0x4138AE84

_API_VERSION = 12
_EXIT_HLT = 5
_EXIT_REASON_OFFSET = 8
_SREGS_BYTES = 0x138
_REGS = struct.Struct("18Q")
_REGION = struct.Struct("IIQQQ")
_SEGMENT_BASE_AND_SELECTOR = ((0, "Q"), (12, "H"))

_MEMORY_BYTES = 64 * 1024
_CODE = 0x1000
_INSTRUCTIONS_PER_ROUND = 2


class ProbeError(Exception):
    """KVM is there and does not work; the text says where it failed."""


@dataclass(frozen=True)
class VirtualCpu:
    descriptor: int
    shared: mmap.mmap
    memory: mmap.mmap


def loop_code(rounds: int) -> bytes:
    """Real mode: mov ecx, rounds; again: dec ecx; jnz again; hlt."""
    return b"\x66\xb9" + struct.pack("<I", rounds) + b"\x66\x49" + b"\x75\xfc" + b"\xf4"


def make_cpu(kvm: int) -> VirtualCpu:
    if fcntl.ioctl(kvm, _GET_API_VERSION) != _API_VERSION:
        raise ProbeError("KVM's interface has an unknown version")
    vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
    # Intel CPUs of before 2010 run real mode through a task segment; others ignore the place.
    fcntl.ioctl(vm, _SET_TSS_ADDR, 0x7FFBD000)
    memory = mmap.mmap(-1, _MEMORY_BYTES)
    address = _address(memory)
    region = _REGION.pack(0, 0, 0, _MEMORY_BYTES, address)
    fcntl.ioctl(vm, _SET_USER_MEMORY_REGION, region)
    cpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
    size = fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE)
    return VirtualCpu(cpu, mmap.mmap(cpu, size), memory)


def _address(memory: mmap.mmap) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def run(cpu: VirtualCpu, rounds: int) -> float:
    """Seconds for `rounds` rounds of the loop; raises `ProbeError` if it does not end in hlt."""
    code = loop_code(rounds)
    cpu.memory[_CODE : _CODE + len(code)] = code
    segments = bytearray(fcntl.ioctl(cpu.descriptor, _GET_SREGS, bytes(_SREGS_BYTES)))
    for offset, form in _SEGMENT_BASE_AND_SELECTOR:  # the code segment comes first
        struct.pack_into(form, segments, offset, 0)
    fcntl.ioctl(cpu.descriptor, _SET_SREGS, bytes(segments))
    registers = [0] * 18
    registers[16], registers[17] = _CODE, 2  # rip, rflags
    fcntl.ioctl(cpu.descriptor, _SET_REGS, _REGS.pack(*registers))
    start = time.perf_counter()
    fcntl.ioctl(cpu.descriptor, _RUN, 0)
    took = time.perf_counter() - start
    reason = struct.unpack_from("I", cpu.shared, _EXIT_REASON_OFFSET)[0]
    if reason != _EXIT_HLT:
        raise ProbeError(f"the virtual CPU stopped with exit reason {reason}")
    return took


def measure(device: str) -> float:
    """Instructions a second."""
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        cpu = make_cpu(kvm)
        few, many = 50_000, 5_000_000
        speed = _INSTRUCTIONS_PER_ROUND * few / run(cpu, few)
        if speed < 10_000_000:  # emulated; more of it would only take longer
            return speed
        return _INSTRUCTIONS_PER_ROUND * many / run(cpu, many)
    finally:
        os.close(kvm)


def main() -> None:
    try:
        answer = {"instructions_per_second": measure(sys.argv[1])}
    except (OSError, ProbeError) as error:
        answer = {"error": str(error)}  # type: ignore[dict-item]
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
