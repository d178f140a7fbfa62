"""Who this launcher is: its Ed25519 key, kept in the state directory, and its enrolment secret."""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import TypeAdapter, ValidationError

from copilot_agent.protocol.enrolment import Secret, enrolment_statement
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.guest import Enrolment

_SECRET: TypeAdapter[str] = TypeAdapter(Secret)
_MOST_SECRET_BYTES = 4096


class IdentityError(CopilotError):
    code = ErrorCode.INVALID_REQUEST


class Identity:
    """Vouches for the keys of the pilots that this launcher boots."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """The key at `path`, made (mode 0600) if it is not there."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            return cls(_create(path))
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(
                f"{path} is no Ed25519 key", remedy="delete it; a new enrolment secret is needed"
            )
        return cls(key)

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _text(raw)

    def vouch(self, secret: str, pilot_key: str) -> Enrolment:
        digest = hashlib.sha256(secret.encode("ascii")).hexdigest()
        signature = self._key.sign(enrolment_statement(digest, pilot_key))
        return Enrolment(secret=secret, launcher_key=self.public_key, signature=_text(signature))


def read_secret(path: Path) -> str:
    """The enrolment secret: the file's only line. Never shown, so errors name the file only."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_SECRET_BYTES).decode("ascii").strip()
        return _SECRET.validate_python(text)
    except OSError as error:
        raise IdentityError(
            f"the enrolment secret cannot be read from {path}: {error.strerror}",
            remedy="copilot-manager enrolment create makes one; name its file: --enrolment-file",
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise IdentityError(
            f"{path} holds no enrolment secret (one line of 43 characters)",
            remedy="copy the secret anew from copilot-manager enrolment create",
        ) from None


def _create(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return key


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
