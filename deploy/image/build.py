"""Puts an image together: layers, manifest, signature, public key."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.image import files
from deploy.image.contents import ARCHITECTURE, COMMAND_LINE, EXPIRY_DAYS, IMAGE_NAME, TOOLS
from deploy.image.debs import Debs
from deploy.image.layers import Built, Layers
from deploy.image.lock import Lock, read_lock
from deploy.image.problems import BuildError
from deploy.image.wheels import read_requirements
from vm_launcher.images.manifest import (
    MANIFEST,
    SIGNATURE,
    UNPACKED,
    Contents,
    Layer,
    Manifest,
    Part,
    Role,
)
from vm_launcher.images.signing import public_pem, sign_manifest

Say = Callable[[str], None]
PUBLIC_KEY = "image-key.pub"
REPOSITORY = Path(__file__).resolve().parents[2]


def check_tools() -> None:
    missing = [
        tool
        for tool in TOOLS
        if shutil.which(tool.program, path=os.environ["PATH"] + ":/usr/sbin") is None
    ]
    if missing:
        raise BuildError(
            f"missing programs: {', '.join(tool.program for tool in missing)}",
            f"sudo apt-get install {' '.join(sorted({tool.package for tool in missing}))}",
        )


def build_image(
    cache: Path, out: Path, say: Say, key_file: Path | None = None, agent: Path | None = None
) -> Manifest:
    """Build into `out`; unchanged inputs cost only the check. Raises BuildError."""
    started = time.monotonic()
    check_tools()
    source = (agent or REPOSITORY / "copilot_agent").resolve()
    if not (source / "__init__.py").is_file():
        raise BuildError(f"{source} is not a Python package", "name the tree with --agent-tree")
    cache = cache.resolve()
    with files.locked(cache, lambda: say("another build uses this cache, waiting for it")):
        manifest = _build(cache, out, say, key_file, source)
    say(f"image: serial {manifest.serial} in {out}, {time.monotonic() - started:.1f} s")
    return manifest


def _build(cache: Path, out: Path, say: Say, key_file: Path | None, source: Path) -> Manifest:
    debs = Debs(cache, say)
    lock = debs.effective(read_lock())
    layers = Layers(cache, lock, debs, say)
    built: dict[Role, Built] = {
        "base": layers.base(),
        "kernel": layers.kernel(),
        "initrd": layers.initrd(),
        "agent": layers.agent(source),
    }
    layers.prune(list(built.values()))
    key = _signing_key(key_file or cache / "signing-key.pem", create=key_file is None)
    manifest = _manifest(lock, built)
    _publish(manifest, built, key, out)
    return manifest


def _manifest(lock: Lock, built: dict[Role, Built]) -> Manifest:
    packages = tuple(Part(name=p.name, version=p.version) for p in lock.every_package())
    wheels = tuple(Part(name=n, version=v) for n, (v, _) in sorted(read_requirements().items()))
    return Manifest(
        version=1,
        name=IMAGE_NAME,
        serial=lock.serial,
        created=lock.snapshot,
        expires=lock.snapshot + dt.timedelta(days=EXPIRY_DAYS),
        architecture=ARCHITECTURE,
        command_line=COMMAND_LINE,
        layers=tuple(_layer(role, layer) for role, layer in built.items()),
        contents=Contents(packages=packages, wheels=wheels),
    )


def _layer(role: Role, built: Built) -> Layer:
    packed = built.shipped != built.plain
    return Layer(
        role=role,
        file=built.shipped.name,
        sha256=files.sha256_file(built.shipped),
        size=built.shipped.stat().st_size,
        packing="xz" if packed else "none",
        unpacked_sha256=files.sha256_file(built.plain) if packed else None,
        unpacked_size=built.plain.stat().st_size if packed else None,
    )


def _signing_key(path: Path, create: bool) -> Ed25519PrivateKey:
    """The development key is made at the first build; only its owner can read it."""
    if not path.is_file():
        if not create:
            raise BuildError(f"no signing key at {path}", "leave out --key for a development key")
        pem = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        files.write_bytes(path, pem, mode=0o600)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError:
        raise BuildError(f"{path} is not a private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BuildError(f"{path} is not an Ed25519 key")
    return key


def _publish(
    manifest: Manifest, built: dict[Role, Built], key: Ed25519PrivateKey, out: Path
) -> None:
    """Layers first, manifest last: an interrupted build leaves the old image or a refused one."""
    out.mkdir(parents=True, exist_ok=True)
    old = _layer_files(out)
    for role, layer in built.items():
        target = out / layer.shipped.name
        same = target.is_file() and files.sha256_file(target) == manifest.layer(role).sha256
        if not same:
            files.write_bytes(target, layer.shipped.read_bytes())
    _leave_unpacked(manifest, built, out / UNPACKED)
    data = manifest.model_dump_json(indent=1).encode() + b"\n"
    files.write_bytes(out / PUBLIC_KEY, public_pem(key.public_key()))
    files.write_bytes(out / SIGNATURE, sign_manifest(data, key))
    files.write_bytes(out / MANIFEST, data)
    for name in old - {layer.file for layer in manifest.layers}:
        (out / name).unlink(missing_ok=True)


def _leave_unpacked(manifest: Manifest, built: dict[Role, Built], into: Path) -> None:
    """Links for a launcher on this machine, so that it need not unpack what was just packed."""
    into.mkdir(exist_ok=True)
    wanted = {
        layer.unpacked_sha256: built[layer.role].plain
        for layer in manifest.layers
        if layer.unpacked_sha256
    }
    for old in into.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, plain in wanted.items():
        plain.chmod(0o644)  # QEMU opens it as another user
        if not (into / name).exists():
            with contextlib.suppress(OSError):  # another file system: the launcher unpacks
                os.link(plain, into / name)


def _layer_files(out: Path) -> set[str]:
    """What an earlier build left in `out`."""
    try:
        earlier = Manifest.model_validate_json((out / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return set()
    return {layer.file for layer in earlier.layers}
