"""Pieces of the image builder that need no network."""

from __future__ import annotations

import datetime as dt
import lzma
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from deploy.image import files, kernel, packing, tree, wheels
from deploy.image.initrd import make_initrd
from deploy.image.lock import LOCK_FILE, REQUIREMENTS, Package, next_serial, read_lock
from deploy.image.problems import BuildError


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Name to (mode, content), read by the format's description alone."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        at = (start + size + 3) // 4 * 4


def test_the_initrd_holds_init_and_modules_in_order() -> None:
    modules = {"00-b.ko": b"first", "01-a.ko": b"second!"}
    archive = make_initrd(b"busybox", modules, epoch=1_700_000_000)
    found = read_cpio(archive)
    assert found["init"][0] == 0o100755
    assert found["init"][1].startswith(b"#!/bin/sh")
    assert found["lib/order"][1] == b"/lib/00-b.ko\n/lib/01-a.ko\n"
    assert found["lib/01-a.ko"][1] == b"second!"
    assert found["bin/sh"] == (0o120777, b"busybox")
    assert archive == make_initrd(b"busybox", modules, epoch=1_700_000_000)


def test_every_program_that_init_calls_is_in_the_initrd() -> None:
    archive = read_cpio(make_initrd(b"", {}, 0))
    script = (Path(tree.GUEST_FILES).parent / "init").read_text()
    known = {
        "mount", "mkdir", "insmod", "switch_root", "ln", "ip", "sleep", "reboot", "chroot",
        "umount",
    }  # fmt: skip
    used = {word for word in known if word in script}
    assert used == known
    assert {f"bin/{name}" for name in known} <= archive.keys()


def test_init_and_run_agent_are_valid_shell() -> None:
    guest = Path(tree.GUEST_FILES).parent
    for script in (guest / "init", guest / "root/usr/lib/copilot/run-agent"):
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_packing_is_reproducible_and_reversible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_PIECE", 1 << 16)
    data = os.urandom(50_000) * 5
    packed = packing.pack(data)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert packing.pack(data) == packed
    assert lzma.decompress(packed) == data


def test_modules_come_after_what_they_depend_on() -> None:
    def module(depends: str) -> bytes:
        return b"\x7fELF license=GPL\0depends=" + depends.encode() + b"\0name=x\0"

    found = {
        "virtio_blk": module("virtio,virtio_ring"),
        "virtio": module(""),
        "virtio_ring": module("virtio"),
        "virtio-rng": module("rng_core"),
        "rng-core": module(""),
        "unused": module(""),
    }
    order = list(kernel._closure(found, ("virtio_blk", "virtio-rng")))
    assert order == ["virtio", "virtio_ring", "virtio_blk", "rng-core", "virtio-rng"]
    with pytest.raises(BuildError, match="no module squashfs"):
        kernel._closure(found, ("squashfs",))


def test_an_unknown_kernel_compression_is_said() -> None:
    with pytest.raises(BuildError, match="unknown compression"):
        kernel.vmlinux(bytes(0x1000))


def test_wheels_cannot_write_outside(tmp_path: Path) -> None:
    wheel = tmp_path / "bad-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../outside.py", "x = 1")
    with pytest.raises(BuildError, match="bad member"):
        wheels.unpack_wheels([wheel], tmp_path / "site")
    assert not (tmp_path / "outside.py").exists()


def test_a_requirement_without_its_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("aiohttp==3.14.5\n")
    with pytest.raises(BuildError, match="cannot read"):
        wheels.read_requirements(path)


def test_the_repositorys_lock_holds_no_address_and_all_hashes() -> None:
    lock = read_lock()
    assert lock.snapshot.tzinfo is not None
    assert {package.suite for package in lock.packages} == {"trixie"}
    for path in (LOCK_FILE, REQUIREMENTS):
        assert "://" not in path.read_text()
    assert {"aiohttp", "pydantic", "h2", "cryptography"} <= wheels.read_requirements().keys()


def test_a_broken_lock_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    with pytest.raises(BuildError, match="missing"):
        read_lock(path)
    path.write_text('{"version": 1}')
    with pytest.raises(BuildError, match="not a lock file"):
        read_lock(path)


def test_serials_only_grow() -> None:
    day = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    assert next_serial(0, day) == 2026112101
    assert next_serial(2026112101, day) == 2026112102
    assert next_serial(2027010101, day) == 2027010102


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.fresh_directory(tmp_path / "layer") as work:
        (work / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with files.fresh_directory(tmp_path / "layer") as work:
        (work / "whole").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["layer", "whole"]


def make_deb(tmp_path: Path, name: str) -> Path:
    root = tmp_path / "deb"
    for path, text in {
        "DEBIAN/control": f"Package: {name}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: a <a@example.org>\nDescription: x\n",
        "lib/libx.so": "library",
        "usr/share/doc/x/README": "doc",
        "usr/share/ca-certificates/mozilla/A.crt": "A",
        "usr/bin/tool": "#!/bin/sh\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "usr/bin/tool").chmod(0o4755)
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(deb)], check=True, capture_output=True)
    return deb


def test_a_tree_is_merged_stripped_and_without_set_uid(tmp_path: Path) -> None:
    deb, root = make_deb(tmp_path, "xtool"), tmp_path / "root"
    package = Package(name="xtool", version="1", suite="trixie", size=1, sha256="0" * 64)
    tree.make_tree(root, [(package, deb)])
    assert (root / "lib").readlink() == Path("usr/lib")
    assert (root / "usr/lib/libx.so").read_text() == "library"
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "A"
    assert not (root / "usr/share/doc").exists()
    assert (root / "usr/sbin/init").readlink() == Path("../bin/busybox")
