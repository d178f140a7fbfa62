"""The image's layers, each kept in the cache under the fingerprint of what it is made from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.image import bytecode, files, initrd, kernel, packing, tree, wheels
from deploy.image.contents import MODULES, SITE
from deploy.image.debs import Debs
from deploy.image.lock import REQUIREMENTS, Lock
from deploy.image.problems import BuildError

Say = Callable[[str], None]
_HERE = Path(__file__).parent
AGENT_PATH = "/opt/copilot"


@dataclass(frozen=True)
class Built:
    """One layer in the cache: `shipped` is what travels, `plain` what boots (may be the same)."""

    shipped: Path
    plain: Path


def squash(source: Path, target: Path, epoch: int, compression: tuple[str, ...]) -> None:
    command = [
        "mksquashfs", str(source), str(target), "-noappend", "-no-progress", "-quiet",
        "-no-xattrs", "-no-exports", "-all-root", "-all-time", str(epoch), "-mkfs-time", str(epoch),
        "-reproducible", *compression,
    ]  # fmt: skip
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"mksquashfs failed: {done.stderr.strip()[-600:]}")


def _key(sources: tuple[str, ...], *parts: bytes | str) -> str:
    """Of the builder's own sources and what they work on."""
    return files.fingerprint([*((_HERE / name).read_bytes() for name in sources), *parts])


class Layers:
    """Builds what is not in the cache yet."""

    def __init__(self, cache: Path, lock: Lock, debs: Debs, say: Say) -> None:
        self._cache = cache / "layers"
        self._lock = lock
        self._debs = debs
        self._say = say
        stamp = lock.snapshot.isoformat()
        packages = [package.model_dump_json() for package in lock.packages]
        self._tree_key = _key(
            ("bytecode.py", "contents.py", "tree.py", "wheels.py"),
            *packages, REQUIREMENTS.read_bytes(), files.tree_fingerprint(tree.GUEST_FILES),
        )  # fmt: skip
        self._base_key = _key(("layers.py", "packing.py"), self._tree_key, stamp)
        self._kernel_key = _key(
            ("kernel.py", "packing.py"), lock.kernel.model_dump_json(), ",".join(MODULES)
        )
        self._initrd_key = _key(
            ("initrd.py",), self._kernel_key, self._tree_key, initrd.GUEST_INIT.read_bytes(), stamp
        )

    def kernel(self) -> Built:
        """The ELF, packed for the wire; its modules are kept beside it for the initrd."""
        target = self._cache / f"kernel-{self._kernel_key}"
        if not target.is_dir():
            with files.fresh_directory(target) as work:
                self._make_kernel(work)
        return Built(target / "vmlinux.xz", target / "vmlinux")

    def _make_kernel(self, work: Path) -> None:
        package = self._lock.kernel
        self._say(f"kernel: {package.name} {package.version}")
        image, modules = kernel.unpack_kernel(self._debs.path(package), MODULES)
        elf = kernel.vmlinux(image)
        self._say(f"kernel: packing {len(elf) / 1e6:.1f} MB (half a minute)")
        (work / "vmlinux").write_bytes(elf)
        (work / "vmlinux.xz").write_bytes(packing.pack(elf))
        (work / "modules").mkdir()
        for number, (name, data) in enumerate(modules.items()):
            (work / "modules" / f"{number:02}-{name}.ko").write_bytes(data)

    def initrd(self) -> Built:
        target = self._cache / f"initrd-{self._initrd_key}"
        if not target.is_dir():
            modules = sorted((self.kernel().plain.parent / "modules").iterdir())
            named = {path.name: path.read_bytes() for path in modules}
            busybox = (self.base_tree() / "usr/bin/busybox").read_bytes()
            archive = initrd.make_initrd(busybox, named, self._lock.epoch)
            with files.fresh_directory(target) as work:
                (work / "initrd").write_bytes(archive)
                (work / "initrd.xz").write_bytes(packing.pack(archive))
            self._say(f"initrd: {len(named)} kernel modules, busybox, /init")
        return Built(target / "initrd.xz", target / "initrd")

    def base_tree(self) -> Path:
        """The unpacked root with bytecode; also the interpreter that compiles the agent."""
        target = self._cache / f"tree-{self._tree_key}"
        if not target.is_dir():
            with files.fresh_directory(target) as work:
                self._make_tree(work)
        return target

    def _make_tree(self, root: Path) -> None:
        lock = self._lock
        self._say(f"base: unpacking {len(lock.packages)} Debian packages")
        tree.make_tree(root, [(package, self._debs.path(package)) for package in lock.packages])
        found = wheels.fetch_wheels(self._cache.parent)
        self._say(f"base: unpacking {len(found)} wheels")
        wheels.unpack_wheels(found, root / SITE)
        tree.strip_site(root)
        tree.add_guest_files(root)
        checked = tree.check_libraries(root)
        self._say(f"base: the libraries of {checked} programs are complete")
        count = bytecode.compile_tree(root, root / "usr/lib", "/usr/lib")
        files.normal_modes(root)
        self._say(f"base: {count} files of bytecode, compiled by the guest's Python")

    def base(self) -> Built:
        target = self._cache / f"base-{self._base_key}"
        if not target.is_dir():
            root = self.base_tree()
            with files.fresh_directory(target) as work:
                plain = work / "base.squashfs"
                squash(root, plain, self._lock.epoch, ("-noI", "-noD", "-noF", "-noX"))
                self._say(f"base: packing {plain.stat().st_size / 1e6:.1f} MB (a minute)")
                (work / "base.squashfs.xz").write_bytes(packing.pack(plain.read_bytes()))
        return Built(target / "base.squashfs.xz", target / "base.squashfs")

    def agent(self, source: Path) -> Built:
        """The package in the directory `source`/copilot_agent, with bytecode."""
        key = files.fingerprint([self._base_key, files.tree_fingerprint(source)])
        target = self._cache / f"agent-{key}"
        if not target.is_dir():
            with files.fresh_directory(target) as work:
                count = self._make_agent(source, work)
                self._say(f"agent: {count} modules from {source.name}")
        return Built(target / "agent.squashfs", target / "agent.squashfs")

    def prune(self, used: list[Built]) -> None:
        """Forget layers that this build did not use; small agent layers stay."""
        keep = {layer.plain.parent for layer in used} | {self.base_tree()}
        for path in self._cache.iterdir():
            if path not in keep and not path.name.startswith("agent-"):
                shutil.rmtree(path)

    def _make_agent(self, source: Path, work: Path) -> int:
        root = work / "root"
        package = root / "copilot_agent"
        for path in files.source_files(source):
            copy = package / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        count = bytecode.compile_tree(self.base_tree(), root, AGENT_PATH)
        files.normal_modes(root)
        squash(root, work / "agent.squashfs", self._lock.epoch, ("-comp", "xz", "-b", "256K"))
        shutil.rmtree(root)
        return count
