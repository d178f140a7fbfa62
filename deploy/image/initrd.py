"""The initial RAM disk: busybox, our /init and the modules it loads, as a cpio archive."""

from __future__ import annotations

from pathlib import Path

GUEST_INIT = Path(__file__).parent / "guest" / "init"
_DIRECTORY, _FILE, _LINK, _DEVICE = 0o040755, 0o100755, 0o120777, 0o020600
_APPLETS = (
    "sh", "mount", "mkdir", "insmod", "switch_root", "cat", "ln", "chmod", "chown", "ip", "sleep",
    "reboot", "echo", "chroot", "umount",
)  # fmt: skip


class Cpio:
    """Writes the "newc" format (Linux's Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._out = bytearray()
        self._inode = 0

    def add(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (
            self._inode, mode, 0, 0, 1, self._epoch, len(data), 0, 0, *device, len(encoded), 0,
        )  # fmt: skip
        self._out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._out += data
        self._pad()

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._out)

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % 4)


def make_initrd(busybox: bytes, modules: dict[str, bytes], epoch: int) -> bytes:
    """`modules` in loading order; /modules lists them for /init."""
    cpio = Cpio(epoch)
    for name in ("bin", "dev", "lib", "proc", "sys", "base", "agent", "upper", "root"):
        cpio.add(name, _DIRECTORY)
    cpio.add("dev/console", _DEVICE, device=(5, 1))
    cpio.add("dev/null", 0o020666, device=(1, 3))
    cpio.add("bin/busybox", _FILE, busybox)
    for applet in _APPLETS:
        cpio.add(f"bin/{applet}", _LINK, b"busybox")
    for name, data in modules.items():
        cpio.add(f"lib/{name}", _FILE, data)
    cpio.add("lib/order", _FILE, "".join(f"/lib/{name}\n" for name in modules).encode())
    cpio.add("init", _FILE, GUEST_INIT.read_bytes())
    return cpio.finish()
