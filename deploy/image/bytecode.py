"""Bytecode of the guest, compiled by the guest's own interpreter through its own loader."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.image.problems import BuildError
from deploy.image.tree import loader

_COMPILE = """\
import compileall, py_compile, sys
where, shown = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
sys.exit(not compileall.compile_dir(where, stripdir=where, prependdir=shown, quiet=1, force=True,
                                    invalidation_mode=mode, maxlevels=30))
"""


def guest_python(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the guest's Python on the build host, isolated from the host's settings."""
    command = [*loader(root), str(root / "usr/bin/python3.13"), *args]
    env = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def compile_tree(root: Path, where: Path, shown: str) -> int:
    """Compile all of `where` (an absolute path in the guest: `shown`); returns the file count.

    Unchecked hashes: no time stamp gets in, and the guest does not look at the source at import.
    """
    done = guest_python(root, "-S", "-c", _COMPILE, str(where.resolve()), shown)
    sources = [path for path in where.rglob("*.py") if path.is_file()]
    compiled = sum(1 for _ in where.rglob("*.pyc"))
    if done.returncode != 0 or compiled != len(sources):
        raise BuildError(
            f"bytecode: {compiled} files from {len(sources)} sources in {shown}: "
            f"{(done.stdout + done.stderr).strip()[-600:]}"
        )
    return compiled
