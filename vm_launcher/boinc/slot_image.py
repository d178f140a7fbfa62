"""The task's files, as BOINC has downloaded them one by one, put together again as one image."""

import os
import shutil
import stat
from pathlib import Path

from vm_launcher.boinc.slot import Slot
from vm_launcher.images.manifest import MANIFEST, SIGNATURE, UNPACKED, Role
from vm_launcher.images.store import parse_manifest, read_small

LAYER_NAMES: dict[Role, str] = {
    "kernel": "vmlinux",
    "initrd": "initrd",
    "base": "base.squashfs",
    "agent": "agent.squashfs",
}
"""Logical names of the layers as they boot, that is unpacked."""

IMAGE_KEY = "image-key.pub"


def collect_image(slot: Slot, into: Path) -> Path:
    """A directory for `load_image`, of links; nothing is verified yet. Raises ImageError."""
    shutil.rmtree(into, ignore_errors=True)
    (into / UNPACKED).mkdir(parents=True)
    for name in (MANIFEST, SIGNATURE):
        _link(slot.resolve(name), into / name)
    for layer in parse_manifest(read_small(into / MANIFEST)).layers:
        place = layer.file if layer.packing == "none" else f"{UNPACKED}/{layer.boot_sha256}"
        _link(slot.resolve(LAYER_NAMES[layer.role]), into / place)
    return into


def _link(source: Path, target: Path) -> None:
    """A copy where root's VM, which runs as nobody, could not read the client's own file."""
    if os.geteuid() == 0 and source.exists() and not source.stat().st_mode & stat.S_IROTH:
        shutil.copyfile(source, target)
        target.chmod(0o644)
    else:
        target.symlink_to(source)
