"""From the source to the single file: PyInstaller makes a directory, `bundle` packs it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.launcher.bundle import bundle

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "vm-launcher"
_HERE = Path(__file__).resolve().parent
_SOURCES = ("vm_launcher", "copilot_agent/protocol", "deploy/launcher")
_FILES = ("copilot_agent/__init__.py", "pyproject.toml", "requirements/launcher.txt")
_LEFT_OUT = (
    *("pydantic.v1", "pydantic.mypy", "xmlrpc", "lib2to3"),
    *("unittest", "doctest", "pydoc", "pdb", "sqlite3", "tkinter", "curses", "setuptools", "pip"),
    *("_codecs_jp", "_codecs_hk", "_codecs_cn", "_codecs_kr", "_codecs_tw", "_codecs_iso2022"),
    *("multiprocessing", "concurrent.futures.process", "numpy", "email_validator", "_bz2", "bz2"),
)


def build(cache: Path, say: Callable[[str], None]) -> Path:
    """The file, made anew if anything that goes into it has changed.

    Raises `subprocess.CalledProcessError` with what PyInstaller has said.
    """
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    made, stamp = cache / NAME, cache / "stamp"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held by another run: it builds for us
        inputs = inputs_digest(REPOSITORY)
        if made.is_file() and stamp.is_file() and stamp.read_text() == inputs:
            return made
        say("building the launcher's single file (about 20 s)")
        stamp.unlink(missing_ok=True)
        bundle(_freeze(cache / "work"), _HERE / "header.sh", made)
        shutil.rmtree(cache / "work")
        stamp.write_text(inputs)
    return made


def inputs_digest(root: Path) -> str:
    """Over the names and contents of all that the file is made of, and the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    for path in _inputs(root):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _inputs(root: Path) -> Iterator[Path]:
    for source in _SOURCES:
        found = (path for ending in ("py", "sh") for path in (root / source).rglob(f"*.{ending}"))
        yield from sorted(found)
    yield from (root / name for name in _FILES)


def _freeze(work: Path) -> Path:
    """The directory that PyInstaller makes: program, interpreter, libraries."""
    shutil.rmtree(work, ignore_errors=True)
    metadata = _metadata(work)
    command = [
        *(sys.executable, "-m", "PyInstaller", str(_HERE / "entry.py"), "--name", NAME),
        *("--onedir", "--strip", "--optimize", "2", "--noconfirm", "--log-level", "WARN"),
        *("--distpath", str(work / "dist"), "--workpath", str(work), "--specpath", str(work)),
        *("--paths", str(REPOSITORY), "--add-data", f"{metadata}:{metadata.name}"),
        *(word for name in _drivers() for word in ("--hidden-import", name.partition(":")[0])),
        *(word for name in _LEFT_OUT for word in ("--exclude-module", name)),
    ]
    # the same bytes from the same source, as far as PyInstaller goes
    environment = {**os.environ, "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1"}
    environment |= {"PYINSTALLER_CONFIG_DIR": str(work / "config")}
    subprocess.run(
        command,
        env=environment,
        cwd=work,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return work / "dist" / NAME


def _metadata(work: Path) -> Path:
    """What `importlib.metadata` finds: our version and drivers. The installed one names paths."""
    project = _project()
    folder = work / f"cloud_copilot-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(head)
    points = "".join(f"{name} = {place}\n" for name, place in _points().items())
    (folder / "entry_points.txt").write_text(f"[copilot.drivers]\n{points}")
    return folder


def _project() -> dict[str, str]:
    tree = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return {name: str(tree["project"][name]) for name in ("name", "version")}


def _points() -> dict[str, str]:
    tree = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return dict(tree["project"]["entry-points"]["copilot.drivers"])


def _drivers() -> Iterator[str]:
    yield from _points().values()


def size_in_words(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
