"""What goes into the image: package names, what is stripped, kernel command line."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE_NAME = "cloud-copilot"
ARCHITECTURE = "amd64"
EXPIRY_DAYS = 400

# The 6.1 kernel of Debian 12 is smaller than 13's (7.6 MB against 9.4 as xz of the ELF) and reaches
# its first process sooner under software emulation.
KERNEL_SUITE = "bookworm"
KERNEL_META = "linux-image-cloud-amd64"

BASE_SUITE = "trixie"
# No dependency resolver decides here: `tree.check_libraries` proves that the list is complete.
BASE_PACKAGES = (
    "bash",
    "busybox-static",
    "ca-certificates",
    "e2fsprogs",
    "gcc-14-base",
    "libblkid1",
    "libbz2-1.0",
    "libc6",
    "libcap-ng0",
    "libcom-err2",
    "libexpat1",
    "libext2fs2t64",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libsqlite3-0",
    "libssl3t64",
    "libstdc++6",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
    "netbase",
    "python3.13",
    "python3.13-minimal",
    "util-linux",
    "zlib1g",
)

# Of these packages only the named files are kept.
ONLY_FILES: dict[str, tuple[str, ...]] = {
    "bash": ("bin/bash", "usr/bin/bash"),
    "busybox-static": ("bin/busybox", "usr/bin/busybox"),
    "ca-certificates": ("usr/share/ca-certificates/mozilla/*",),
    "e2fsprogs": ("sbin/mke2fs", "usr/sbin/mke2fs", "etc/mke2fs.conf"),
    "netbase": ("etc/protocols", "etc/services"),
    "util-linux": ("usr/bin/setpriv",),
}

# Paths of the tree, matched by fnmatch, that no guest program reads.
STRIPPED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/bug",
    "usr/share/apport",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/share/binfmts",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/bash-completion",
    "usr/share/ca-certificates",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/audit",
    "usr/lib/x86_64-linux-gnu/libmemusage.so",
    "usr/lib/x86_64-linux-gnu/libpcprofile.so",
    "usr/lib/x86_64-linux-gnu/engines-3",
    "usr/lib/x86_64-linux-gnu/ossl-modules",
    "usr/lib/valgrind",
    "usr/lib/binfmt.d",
    "usr/lib/python3.13/ensurepip",
    "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/lib2to3",
    "usr/lib/python3.13/pydoc_data",
    "usr/lib/python3.13/test",
    "usr/lib/python3.13/tkinter",
    "usr/lib/python3.13/turtle*",
    "usr/lib/python3.13/_pyrepl",
    "usr/lib/python3.13/venv",
    "usr/lib/python3.13/config-3.13-*",
    "usr/lib/python3.13/curses",
    "usr/lib/python3.13/dbm",
    # Their libraries (ncurses, readline, db) are not in the image.
    "usr/lib/python3.13/lib-dynload/_curses*",
    "usr/lib/python3.13/lib-dynload/readline*",
    "usr/lib/python3.13/lib-dynload/_dbm*",
    "usr/lib/python3.13/lib-dynload/_gdbm*",
    "usr/lib/python3.13/lib-dynload/_test*",
    "usr/lib/python3.13/lib-dynload/xx*",
    "usr/bin/idle*",
    "usr/bin/pydoc*",
    "usr/bin/pygettext*",
    "usr/bin/2to3*",
    "usr/bin/ld.so",
    "etc/python3.13",
)
STRIPPED_ANYWHERE = ("__pycache__", "*.a", "*.la", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h")
SITE = "usr/lib/python3/dist-packages"
SITE_STRIPPED = ("*/tests", "pycparser*", "cffi*")

# Modules of the kernel that the initrd loads, in an order that satisfies their dependencies.
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "squashfs", "overlay")

# panic=1 with QEMU's -no-reboot ends the VM; the timer checks cost a second under emulation.
COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 panic=1 oops=panic "
    "no_timer_check tsc=reliable random.trust_cpu=on 8250.nr_uarts=1 "
    "cryptomgr.notests rcupdate.rcu_expedited=1 initramfs_async=0"
)


@dataclass(frozen=True)
class Tool:
    """A program of the build host and the Debian package that brings it."""

    program: str
    package: str


TOOLS = (
    Tool("apt-get", "apt"),
    Tool("dpkg-deb", "dpkg"),
    Tool("mksquashfs", "squashfs-tools"),
    Tool("lz4", "lz4"),
)
