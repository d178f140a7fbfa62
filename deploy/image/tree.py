"""The guest's root tree: unpacked .debs and wheels, stripped, with our own few files."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from deploy.image.contents import (
    ONLY_FILES,
    SITE,
    SITE_STRIPPED,
    STRIPPED,
    STRIPPED_ANYWHERE,
)
from deploy.image.files import source_files
from deploy.image.lock import Package
from deploy.image.problems import BuildError

GUEST_FILES = Path(__file__).parent / "guest" / "root"
LIBRARY_DIRS = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib")
_MERGED = ("bin", "sbin", "lib", "lib64")
_DIRECTORIES = (
    "dev", "proc", "sys", "run", "tmp", "scratch", "root", "mnt", "etc", "var/lib", "var/log",
    "opt/copilot", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "home",
)  # fmt: skip
_BUSYBOX_LINKS = (
    "awk", "base64", "basename", "bunzip2", "bzip2", "cat", "chmod", "chown", "cmp", "cp", "cut",
    "date", "dd", "df", "diff", "dirname", "dmesg", "du", "echo", "egrep", "env", "expr", "false",
    "fgrep", "find", "free", "grep", "gunzip", "gzip", "head", "hostname", "id", "install", "kill",
    "ln", "ls", "md5sum", "mkdir", "mkfifo", "mktemp", "mv", "nice", "nohup", "nproc", "od",
    "paste", "pgrep", "printenv", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir",
    "sed", "seq", "sh", "sha256sum", "sleep", "sort", "split", "stat", "sync", "tac", "tail", "tar",
    "tee", "test", "time", "timeout", "touch", "tr", "true", "truncate", "tty", "uname", "uniq",
    "unxz", "unzip", "uptime", "vi", "wc", "which", "xargs", "xz", "xzcat", "yes", "zcat",
)  # fmt: skip


def make_tree(root: Path, debs: Iterable[tuple[Package, Path]]) -> None:
    """Unpack into the empty directory `root`. Maintainer scripts are not run."""
    _skeleton(root)
    for package, deb in debs:
        _unpack(package, deb, root)
    _certificates(root)
    _strip(root)
    for name in _BUSYBOX_LINKS:
        if not (link := root / "usr/bin" / name).exists():
            link.symlink_to("busybox")
    (root / "usr/sbin/init").symlink_to("../bin/busybox")
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to("python3.13")
    (root / "usr/bin/python").symlink_to("python3.13")
    (root / "etc/mtab").symlink_to("/proc/self/mounts")


def _skeleton(root: Path) -> None:
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        (root / name).symlink_to(f"usr/{name}")
    (root / "var/tmp").symlink_to("/tmp")  # noqa: S108  (a name in the guest)
    (root / "var/run").symlink_to("/run")


def _unpack(package: Package, deb: Path, root: Path) -> None:
    only = ONLY_FILES.get(package.name)
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if not name or name == "." or (only and not _matches(name, only)):
                continue
            _extract(archive, member, name, root)
    if dpkg.returncode != 0:
        raise BuildError(f"{package.name}: dpkg-deb cannot read the package", "delete the cache")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, root: Path) -> None:
    first, _, rest = name.partition("/")
    target = root / (f"usr/{name}" if first in _MERGED and rest else name)
    if name in _MERGED or ".." in name.split("/"):
        return
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        shutil.copy2(root / member.linkname.removeprefix("./"), target)
    elif (stream := archive.extractfile(member)) is not None:
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _certificates(root: Path) -> None:
    """What update-ca-certificates would make: one file of all roots."""
    found = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    if not found:
        raise BuildError("ca-certificates holds no certificate", "look at ONLY_FILES")
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in found))


def _strip(root: Path) -> None:
    for pattern in STRIPPED:
        for path in root.glob(pattern):
            _remove(path)
    for pattern in STRIPPED_ANYWHERE:
        for path in list(root.rglob(pattern)):
            _remove(path)


def strip_site(root: Path) -> None:
    """Drop what the wheels bring for developers only."""
    for pattern in (*SITE_STRIPPED, *(f"**/{name}" for name in STRIPPED_ANYWHERE)):
        for path in list((root / SITE).glob(pattern)):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def add_guest_files(root: Path) -> None:
    for source in source_files(GUEST_FILES):
        target = root / source.relative_to(GUEST_FILES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        is_script = source.read_bytes()[:2] == b"#!"
        target.chmod(0o755 if is_script else 0o644)


def loader(root: Path) -> list[str]:
    """The guest's own dynamic loader as a command prefix: runs guest programs without a chroot."""
    dirs = ":".join(str(root / name) for name in LIBRARY_DIRS)
    real = (root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").resolve()
    return [str(real), "--library-path", dirs]


def check_libraries(root: Path) -> int:
    """Every ELF file's libraries must be in the tree; the number of files looked at."""
    files = [path for path in sorted(root.rglob("*")) if _is_dynamic(path)]
    problems = []
    for path in files:
        listing = subprocess.run(
            [*loader(root), "--list", str(path)],
            capture_output=True, text=True, check=False, env={"LC_ALL": "C"},
        )  # fmt: skip
        for line in (listing.stdout + listing.stderr).splitlines():
            outside = "=> /" in line and str(root) not in line
            if "not found" in line or "cannot open" in line or outside:
                problems.append(f"{path.relative_to(root)}: {line.strip()}")
    if problems:
        raise BuildError(
            "libraries missing in the guest:\n  " + "\n  ".join(problems[:20]),
            "add their packages to BASE_PACKAGES or strip the files that want them",
        )
    return len(files)


def _is_dynamic(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.name.startswith("ld-linux"):
        return False
    with path.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return False
    return path.name != "busybox"
