"""The guest's Python wheels: a hashed requirements file, fetched and unpacked with pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from deploy.image.files import sha256_file, write_bytes
from deploy.image.lock import REQUIREMENTS, REQUIREMENTS_IN
from deploy.image.problems import BuildError

_TARGET = (
    "--only-binary=:all:",
    "--python-version=3.13",
    "--implementation=cp",
    "--abi=cp313",
    "--abi=abi3",
    "--abi=none",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux2014_x86_64",
)
_LINE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$")


def read_requirements(path: Path = REQUIREMENTS) -> dict[str, tuple[str, str]]:
    """Name to (version, sha256)."""
    found: dict[str, tuple[str, str]] = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise BuildError(f"{path.name}: cannot read {line!r}", "python -m deploy.image lock")
        found[match.group(1)] = (match.group(2), match.group(3))
    return found


def fetch_wheels(cache: Path) -> list[Path]:
    """Wheels of requirements.txt, in its order; only what the cache lacks is downloaded."""
    store = cache / "downloads" / "wheels"
    store.mkdir(parents=True, exist_ok=True)
    wanted = {sha: name for name, (_, sha) in read_requirements().items()}
    have = {sha256_file(path): path for path in store.glob("*.whl")}
    if not wanted.keys() <= have.keys():
        _pip(
            "download", "--quiet", "--no-deps", "--require-hashes", *_TARGET,
            "--dest", str(store), "--requirement", str(REQUIREMENTS),
        )  # fmt: skip
        have = {sha256_file(path): path for path in store.glob("*.whl")}
    missing = [name for sha, name in wanted.items() if sha not in have]
    if missing:
        raise BuildError(f"wheels with a wrong sha256: {', '.join(missing)}", "delete the cache")
    return [have[sha] for sha in wanted]


def unpack_wheels(wheels: list[Path], site: Path) -> None:
    """Pure unpacking: no scripts are made, nothing is compiled."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename)
                if name.is_absolute() or ".." in name.parts:
                    raise BuildError(f"{wheel.name}: bad member {entry.filename!r}")
                if not entry.is_dir() and not name.parts[0].endswith(".data"):
                    target = site / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(entry))


def lock_requirements(constraints: Mapping[str, str]) -> str:
    """Resolve requirements.in afresh against the public index; the text of requirements.txt.

    The machine's own pip settings (links, extra indexes) are left out, so the hashes are those of
    the public wheels; `constraints` (name to version) says what to prefer.
    """
    pins = [f"{name}=={version}" for name, version in sorted(constraints.items())]
    limits = REQUIREMENTS_IN.with_suffix(".constraints.tmp")
    write_bytes(limits, "\n".join(pins).encode())
    try:
        report = _pip(
            "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-",
            "--target", "unused", *_TARGET, "--constraint", str(limits),
            "--requirement", str(REQUIREMENTS_IN), public=True,
        )  # fmt: skip
    finally:
        limits.unlink()
    lines = []
    for item in json.loads(report)["install"]:
        name = str(item["metadata"]["name"]).lower().replace("_", "-")
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={item['metadata']['version']} --hash=sha256:{digest}")
    head = "# Written by `python -m deploy.image lock` from requirements.in, for CPython 3.13.\n"
    return head + "\n".join(sorted(lines)) + "\n"


def _pip(*args: str, public: bool = False) -> str:
    env = dict(os.environ)
    if public:
        for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            env.pop(name, None)
        env["PIP_CONFIG_FILE"] = os.devnull
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"pip {args[0]} failed: {done.stderr.strip()[-800:]}", "check the network and try again"
        )
    return done.stdout
