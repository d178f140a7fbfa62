"""The checks before every boot: signature, expiry, rollback, hashes of all layers."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vm_launcher.images.errors import ImageError
from vm_launcher.images.manifest import MANIFEST, SIGNATURE, Manifest
from vm_launcher.images.signing import check_signature
from vm_launcher.images.store import bootable, parse_manifest, read_small

_SERIAL_FILE = "image-serial"


@dataclass(frozen=True)
class Image:
    """A verified image; absolute paths of what QEMU opens. `sha256` is that of manifest.json."""

    kernel: Path
    initrd: Path
    base: Path
    agent: Path
    command_line: str
    sha256: str
    manifest: Manifest


def load_image(
    directory: Path,
    *,
    trusted_keys: Iterable[Ed25519PublicKey],
    now: datetime,
    state: Path,
    cache: Path | None = None,
) -> Image:
    """Verify the image in `directory` and unpack what needs it into `cache` (default: in `state`).

    `state` remembers the highest serial that ever passed. Raises ImageError.
    """
    data = read_small(directory / MANIFEST)
    check_signature(data, read_small(directory / SIGNATURE), trusted_keys)
    manifest = parse_manifest(data)
    _check_expiry(manifest, now)
    highest = _highest_serial(state)
    if manifest.serial < highest:
        raise ImageError(
            "image_rollback",
            f"the image has serial {manifest.serial}, this launcher has already used {highest}",
            "fetch the current image",
        )
    store = cache if cache is not None else state / "image-cache"
    with ThreadPoolExecutor(max_workers=len(manifest.layers)) as pool:  # hashing lets others run
        found = pool.map(lambda layer: bootable(layer, directory, store), manifest.layers)
        paths = {layer.role: path for layer, path in zip(manifest.layers, found, strict=True)}
    if manifest.serial > highest:
        _remember_serial(state, manifest.serial)
    return Image(
        kernel=paths["kernel"],
        initrd=paths["initrd"],
        base=paths["base"],
        agent=paths["agent"],
        command_line=manifest.command_line,
        sha256=hashlib.sha256(data).hexdigest(),
        manifest=manifest,
    )


def _check_expiry(manifest: Manifest, now: datetime) -> None:
    if now >= manifest.expires:
        raise ImageError(
            "image_expired",
            f"the image expired on {manifest.expires:%Y-%m-%d}",
            "fetch the current image, and check this computer's clock",
        )


def _highest_serial(state: Path) -> int:
    """A damaged file counts as the worst case only for itself: it is reported, not guessed."""
    path = state / _SERIAL_FILE
    if not path.exists():
        return 0
    try:
        return int(path.read_text().strip())
    except ValueError:
        raise ImageError(
            "image_rollback", f"{path} is damaged", "delete it if the image is known to be current"
        ) from None


def _remember_serial(state: Path, serial: int) -> None:
    state.mkdir(parents=True, exist_ok=True)
    part = state / f".{_SERIAL_FILE}.part"
    try:
        part.write_text(f"{serial}\n")
        part.replace(state / _SERIAL_FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
