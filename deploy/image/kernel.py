"""The guest's kernel: the ELF in Debian's bzImage, for booting by PVH, and its modules."""

from __future__ import annotations

import lzma
import re
import struct
import subprocess
import tarfile
from pathlib import Path

from deploy.image.problems import BuildError

_DECOMPRESSORS = {
    b"\x02\x21\x4c\x18": ["lz4", "-dc"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"\xfd7zX": ["xz", "-dc", "--single-stream"],
}


def unpack_kernel(deb: Path, modules: tuple[str, ...]) -> tuple[bytes, dict[str, bytes]]:
    """(bzImage, file name to module) of a kernel package."""
    image = b""
    found: dict[str, bytes] = {}
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive,
    ):
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if "/boot/vmlinuz-" in member.name:
                image = stream.read()
            elif match := re.search(r"/([A-Za-z0-9_-]+)\.ko(\.xz)?$", member.name):
                data = stream.read()
                found[match.group(1)] = lzma.decompress(data) if match.group(2) else data
    if not image:
        raise BuildError(f"{deb.name} holds no kernel")
    return image, _closure(found, modules)


def _closure(found: dict[str, bytes], wanted: tuple[str, ...]) -> dict[str, bytes]:
    """`wanted` with their dependencies before them, in loading order."""
    by_name = {name.replace("-", "_"): name for name in found}
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        file = by_name.get(name.replace("-", "_"))
        if file is None:
            raise BuildError(f"the kernel package has no module {name}")
        if file in ordered:
            return
        match = re.search(rb"\0depends=([^\0]*)\0", b"\0" + found[file])
        for needed in match.group(1).decode().split(",") if match else []:
            if needed:
                visit(needed)
        ordered[file] = found[file]

    for name in wanted:
        visit(name)
    return ordered


def vmlinux(image: bytes) -> bytes:
    """The kernel's ELF without its relocation table (PVH does not relocate).

    Source of the offsets: the Linux/x86 boot protocol (setup_sects, payload_*).
    """
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    payload = image[start : start + length]
    command = _DECOMPRESSORS.get(payload[:4])
    if command is None:
        raise BuildError(f"unknown compression of the kernel: {payload[:6].hex()}")
    # The last four bytes are the unpacked size, appended by the kernel's build.
    done = subprocess.run(command, input=payload[:-4], stdout=subprocess.PIPE, check=False)
    (size,) = struct.unpack("<I", payload[-4:])
    if done.returncode != 0 or len(done.stdout) != size or done.stdout[:4] != b"\x7fELF":
        raise BuildError(f"{command[0]} could not unpack the kernel")
    return done.stdout[: _elf_end(done.stdout)]


def _elf_end(elf: bytes) -> int:
    (program, section) = struct.unpack_from("<QQ", elf, 32)
    (program_size, programs, section_size, sections) = struct.unpack_from("<HHHH", elf, 54)
    ends = [section + section_size * sections]
    for index in range(programs):
        offset, _, _, size = struct.unpack_from("<QQQQ", elf, program + program_size * index + 8)
        ends.append(offset + size)
    return int(max(ends))
