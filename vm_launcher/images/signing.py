"""Ed25519 keys of images: signing for the builder, checking for the launcher."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from vm_launcher.images.errors import ImageError
from vm_launcher.images.manifest import Signature

_REMEDY = "get the image and its key from the project again, or name the right --image-key"


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A PEM file; raises ImageError image_signature."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise ImageError("image_signature", f"no image key at {path}", _REMEDY) from None
    except ValueError:
        raise ImageError("image_signature", f"{path} is not a public key", _REMEDY) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ImageError("image_signature", f"{path} is not an Ed25519 key", _REMEDY)
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign_manifest(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The text of manifest.json.sig."""
    signature = Signature(
        key_id=key_id(key.public_key()), signature=base64.b64encode(key.sign(manifest)).decode()
    )
    return signature.model_dump_json().encode() + b"\n"


def check_signature(
    manifest: bytes, signature: bytes, trusted_keys: Iterable[Ed25519PublicKey]
) -> None:
    """Raises ImageError image_signature unless a trusted key signed exactly these bytes."""
    try:
        parsed = Signature.model_validate_json(signature)
        raw = base64.b64decode(parsed.signature, validate=True)
    except (ValueError, binascii.Error):
        raise ImageError("image_signature", "the signature file is not valid", _REMEDY) from None
    key = next((key for key in trusted_keys if key_id(key) == parsed.key_id), None)
    if key is None:
        raise ImageError(
            "image_signature", f"the image is signed by {parsed.key_id}, not a trusted key", _REMEDY
        )
    try:
        key.verify(raw, manifest)
    except InvalidSignature:
        raise ImageError(
            "image_signature", "the manifest does not match its signature", _REMEDY
        ) from None
