"""The image: boots under software emulation, looks as promised, is the same built twice."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import lzma
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.image import packing
from deploy.image.build import PUBLIC_KEY, REPOSITORY, build_image
from vm_launcher.drivers.qemu.clock import host_tsc_khz, kernel_parameters
from vm_launcher.images import Image, Manifest, load_image, read_public_key

pytestmark = pytest.mark.vm

CACHE = Path(os.environ.get("COPILOT_CACHE", REPOSITORY / ".cache")) / "image-build"
TEST_AGENT = Path(__file__).parent / "image_agent" / "copilot_agent"
BOOT_LIMIT_S = 120.0


def build(cache: Path, out: Path, lines: list[str]) -> Manifest:
    return build_image(cache, out, lines.append, agent=TEST_AGENT)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("image")
    build(CACHE, out, [])
    return out


@pytest.fixture(scope="module")
def image(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return load_image(
        directory,
        trusted_keys=[read_public_key(directory / PUBLIC_KEY)],
        now=dt.datetime.now(dt.UTC),
        state=tmp_path_factory.mktemp("state"),
    )


@dataclass
class Guest:
    """A running VM; its console is a file."""

    process: subprocess.Popen[bytes]
    ctrl: Path
    console: Path

    @contextlib.contextmanager
    def linked(self) -> Iterator[Link]:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(BOOT_LIMIT_S)
            link.connect(str(self.ctrl))
            yield Link(link, self.console)


class Link:
    """The ctrl port: lines of JSON from the guest, words to it."""

    def __init__(self, link: socket.socket, console: Path) -> None:
        self._link = link
        self._lines = link.makefile("rb")
        self._console = console

    def read(self, kind: str) -> dict[str, Any]:
        """The next message of that type."""
        for line in self._lines:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == kind:
                return message
        raise AssertionError(self._console.read_text())

    def ask(self, word: str) -> dict[str, Any]:
        """The answer, and `asked` and `answered` by the host's clock."""
        asked = time.monotonic()
        self._link.sendall(word.encode() + b"\n")
        return self.read(word) | {"asked": asked, "answered": time.monotonic()}


def start(image: Image, work: Path, memory: int, layers: tuple[str, ...]) -> Guest:
    scratch = work / "scratch.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(scratch), "4G"], check=True)
    disks: list[str] = []
    for name in layers:
        file, form = (scratch, "qcow2") if name == "scratch" else (getattr(image, name), "raw")
        only = "off" if name == "scratch" else "on"
        disks += ["-drive", f"if=none,id={name},file={file},format={form},read-only={only}"]
        disks += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    ctrl, console = work / "ctrl", work / "console"
    command = [
        "qemu-system-x86_64", "-machine", "pc-q35-7.2", "-accel", "tcg,thread=multi,tb-size=64",
        "-cpu", "max", "-smp", "2", "-m", str(memory), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", f"{image.command_line} {kernel_parameters(host_tsc_khz())}",
        *disks, "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci,max_ports=4", "-serial", f"file:{console}",
        "-chardev", f"socket,id=ctrl,path={ctrl},server=on,wait=off",
        "-device", "virtserialport,chardev=ctrl,name=org.copilot.ctrl",
    ]  # fmt: skip
    return Guest(subprocess.Popen(command), ctrl, console)


@pytest.fixture
def work() -> Iterator[Path]:
    """A short path: a socket's name has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="vm-") as name:
        yield Path(name)


def await_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 10
    while not path.exists():
        assert process.poll() is None, "QEMU ended"
        assert time.monotonic() < limit
        time.sleep(0.02)


@contextlib.contextmanager
def booted(image: Image, work: Path, memory: int = 192) -> Iterator[Link]:
    guest = start(image, work, memory, ("base", "agent", "scratch"))
    try:
        await_file(guest.ctrl, guest.process)
        with guest.linked() as link:
            yield link
    finally:
        guest.process.kill()
        guest.process.wait()


def moment(link: Link) -> tuple[float, float]:
    """One moment by the host's clock and by the guest's: the least vague of several answers."""
    answers = [link.ask("time") for _ in range(5)]
    best = min(answers, key=lambda one: float(one["answered"]) - float(one["asked"]))
    return (best["asked"] + best["answered"]) / 2, best["monotonic"]


def check_the_clock(link: Link) -> None:
    """Limits on a job's time, and credit for its CPU time, go by the guest's clock."""
    start_host, start_guest = moment(link)
    spun = link.ask("spin")
    end_host, end_guest = moment(link)
    host = end_host - start_host
    assert host > 3
    assert end_guest - start_guest == pytest.approx(host, rel=0.01)
    assert 0.9 < spun["cpu_seconds"] / spun["seconds"] < 1.01


def test_a_guest_of_192_mb_looks_as_promised(image: Image, work: Path) -> None:
    with booted(image, work) as link:
        facts = link.read("facts")
        check_the_clock(link)
    mounts = {where: (kind, options.split(",")) for _, where, kind, options in facts["mounts"]}
    assert facts["python"].startswith("3.13.")
    assert facts["cached"] == [True, True]
    assert facts["certificates"] > 100
    assert mounts["/"][0] == "overlay"
    assert mounts["/opt/copilot"][0] == "squashfs"
    assert {"nosuid", "nodev"} <= set(mounts["/scratch"][1])
    assert mounts["/scratch"][0] == "ext4"
    assert "hidepid=invisible" in mounts["/proc"][1]
    assert set(facts["controllers"]) == {"cpu", "memory", "pids"}
    assert facts["cgroup"] == "0::/agent"
    assert facts["oom_score_adj"] == "-900"
    assert facts["interfaces"] == ["lo"]
    assert facts["scratch"] > 3_900_000_000
    assert facts["sysctl"] == {
        "kernel/sysrq": "0", "kernel/dmesg_restrict": "1", "kernel/panic": "1",
    }  # fmt: skip
    assert facts["memory"]["MemAvailable"] > 70_000


def test_a_guest_without_its_agent_disk_says_so_and_ends(image: Image, work: Path) -> None:
    guest = start(image, work, 192, ("base",))
    try:
        assert guest.process.wait(timeout=BOOT_LIMIT_S) == 0
    finally:
        guest.process.kill()
    assert "no disk with the serial agent" in guest.console.read_text()


def test_the_image_is_small(directory: Path) -> None:
    manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    assert sum(layer.size for layer in manifest.layers) <= 45_000_000


def test_a_warm_build_changes_nothing(directory: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    manifest = (directory / "manifest.json").read_bytes()
    lines: list[str] = []
    build(CACHE, directory, lines)
    told = [line for line in lines if not line.startswith("changed: ")]  # since the lock was made
    assert len(told) == 1  # the summary: nothing was built
    assert (directory / "manifest.json").read_bytes() == manifest
    after = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert after["base.squashfs.xz"] == before["base.squashfs.xz"]


def test_a_second_build_from_nothing_is_bit_identical(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same downloads, in another place, under another name and umask.

    Packing takes minutes and depends on nothing but the bytes; so it is tried with the smallest.
    """
    fresh = tmp_path / "another-cache"
    fresh.mkdir()
    (fresh / "downloads").symlink_to(CACHE.resolve() / "downloads")
    if (remembered := CACHE / "effective-lock.json").is_file():
        (fresh / remembered.name).write_bytes(remembered.read_bytes())
    pack, plain = packing.pack, {}

    def note(data: bytes) -> bytes:
        plain[hashlib.sha256(data).hexdigest()] = data
        return lzma.compress(data, preset=0)

    monkeypatch.setattr(packing, "pack", note)
    old_umask = os.umask(0o077)
    try:
        second = build(fresh, tmp_path / "out", [])
    finally:
        os.umask(old_umask)
    first = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    for one, other in zip(first.layers, second.layers, strict=True):
        assert (one.unpacked_sha256 or one.sha256) == (other.unpacked_sha256 or other.sha256)
    initrd = first.layer("initrd")
    assert pack(plain[str(initrd.unpacked_sha256)]) == (directory / initrd.file).read_bytes()
    assert first.model_copy(update={"layers": ()}) == second.model_copy(update={"layers": ()})
