"""Brings images into the launcher's cache: from a directory or a URL, and unpacked for booting."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import lzma
import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vm_launcher.images.errors import ImageError
from vm_launcher.images.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    UNPACKED,
    Layer,
    Manifest,
)
from vm_launcher.images.signing import check_signature

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_AGAIN = "fetch the image again"
Progress = Callable[[str, int, int], None]


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_small(path: Path, limit: int = MAX_MANIFEST_BYTES) -> bytes:
    """A whole file of at most `limit` bytes; ImageError image_missing or image_tampered."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise ImageError(
            "image_missing",
            f"cannot read {path}: {error.strerror}",
            "build or fetch the image first",
        ) from None
    if len(data) > limit:
        raise ImageError("image_tampered", f"{path.name} is absurdly large", _AGAIN)
    return data


def parse_manifest(data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValueError as error:
        first = str(error).splitlines()[:3]
        raise ImageError("image_tampered", f"bad manifest: {' '.join(first)}", _AGAIN) from None


def check_file(path: Path, sha256: str, size: int) -> None:
    """Raises ImageError image_missing or image_tampered."""
    if not path.is_file():
        raise ImageError("image_missing", f"{path.name} is not there", _AGAIN)
    if not _is_file(path, sha256, size):
        raise ImageError("image_tampered", f"{path.name} differs from the signed manifest", _AGAIN)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A stream beside `target` that takes its place when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            yield stream
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def bootable(layer: Layer, directory: Path, cache: Path) -> Path:
    """The verified file that the VM gets: the layer itself, or its unpacked copy.

    The builder leaves such copies beside its layers; what is fetched is unpacked into the cache.
    Where a good copy is, the packed layer need not be: a BOINC project ships only the copies.
    """
    shipped = directory / layer.file
    if layer.packing == "none":
        check_file(shipped, layer.sha256, layer.size)
        return shipped.resolve()
    sha256, size = layer.unpacked_sha256, layer.unpacked_size
    if sha256 is None or size is None:
        raise ImageError("image_tampered", f"{layer.file}: no unpacked size", _AGAIN)
    beside, unpacked = directory / UNPACKED / sha256, cache / UNPACKED / sha256
    for copy in (beside, unpacked):
        if _is_file(copy, sha256, size):
            return copy.resolve()
    if beside.exists() and not shipped.exists():
        message = f"the unpacked {layer.role} differs from the signed manifest"
        raise ImageError("image_tampered", message, _AGAIN)
    check_file(shipped, layer.sha256, layer.size)
    _unpack(shipped, unpacked, sha256, size)
    return unpacked.resolve()


def _is_file(path: Path, sha256: str, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size and sha256_file(path) == sha256


def _unpack(shipped: Path, target: Path, sha256: str, size: int) -> None:
    digest, total = hashlib.sha256(), 0
    try:
        with lzma.open(shipped, "rb") as source, _replacing(target) as out:
            while data := source.read(_CHUNK):
                total += len(data)
                if total > size:
                    break
                digest.update(data)
                out.write(data)
            if total != size or digest.hexdigest() != sha256:
                raise ImageError(
                    "image_tampered", f"{shipped.name} unpacks to something else", _AGAIN
                )
    except (lzma.LZMAError, EOFError):
        raise ImageError("image_tampered", f"{shipped.name} cannot be unpacked", _AGAIN) from None


def fetch_image(
    source: str,
    into: Path,
    trusted_keys: Iterable[Ed25519PublicKey],
    progress: Progress = lambda _file, _done, _size: None,
) -> Path:
    """Copy an image from a directory or http(s) URL into `into`/<serial>; returns that directory.

    The signature is checked before any layer is fetched; each layer is capped at its signed size,
    hashed, and taken up where an earlier try ended.
    """
    manifest_bytes = _read_source(source, MANIFEST)
    signature = _read_source(source, SIGNATURE)
    check_signature(manifest_bytes, signature, trusted_keys)
    manifest = parse_manifest(manifest_bytes)
    target = into / str(manifest.serial)
    target.mkdir(parents=True, exist_ok=True)
    for layer in manifest.layers:
        _fetch_layer(source, layer, target, progress)
    for name, data in ((SIGNATURE, signature), (MANIFEST, manifest_bytes)):
        with _replacing(target / name) as out:
            out.write(data)
    return target


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _read_source(source: str, name: str) -> bytes:
    if not _is_url(source):
        return read_small(Path(source) / name)
    with _open_url(source, name, 0) as response:
        data = response.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ImageError("image_tampered", f"{name} is absurdly large", _AGAIN)
    return bytes(data)


def _open_url(source: str, name: str, offset: int) -> BinaryIO:
    """The response from byte `offset` on; its status tells whether the server obeyed."""
    url = f"{source.rstrip('/')}/{urllib.parse.quote(name)}"
    request = urllib.request.Request(url)  # noqa: S310  (_is_url allows http and https only)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # type: ignore[no-any-return]  # noqa: S310
    except (urllib.error.URLError, OSError) as error:
        raise ImageError(
            "image_missing", f"cannot fetch {name}: {error}", "check the network and the address"
        ) from None


def _fetch_layer(source: str, layer: Layer, target: Path, progress: Progress) -> None:
    final = target / layer.file
    if _is_file(final, layer.sha256, layer.size):
        progress(layer.file, layer.size, layer.size)
        return
    part = target / f".{layer.file}.part"
    if _is_url(source):
        _download(source, layer, part, progress)
    else:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(Path(source) / layer.file, part)
    try:
        check_file(part, layer.sha256, layer.size)
    except ImageError as error:
        part.unlink(missing_ok=True)
        raise ImageError(
            error.code, error.message.replace(part.name, layer.file), error.remedy
        ) from None
    part.replace(final)


def _download(source: str, layer: Layer, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.is_file() else 0
    if done >= layer.size:
        part.unlink()
        done = 0
    with _open_url(source, layer.file, done) as response:
        if getattr(response, "status", 200) != 206:
            done = 0
        with part.open("ab" if done else "wb") as out:
            while done <= layer.size and (data := _read(response, layer)):
                out.write(data[: layer.size + 1 - done])
                done += len(data)
                progress(layer.file, done, layer.size)
    if done < layer.size:
        raise _broke_off(layer, f"{done} of {layer.size} bytes came")


def _read(response: BinaryIO, layer: Layer) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _broke_off(layer, str(error)) from None


def _broke_off(layer: Layer, why: str) -> ImageError:
    return ImageError(
        "image_missing",
        f"{layer.file}: the download broke off: {why}",
        "try again, it goes on where it stopped",
    )
