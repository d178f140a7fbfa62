"""Code signing keys in files, as BOINC's tools name them."""

import contextlib
import os
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from vm_launcher.boinc_project.signing import PrivateKey, PublicKey, SigningError
from vm_launcher.settings import SettingsError

PRIVATE = "code_sign_private"
PUBLIC = "code_sign_public"
_MOST_BYTES = 16_384


class KeyThereError(CopilotError):
    code = ErrorCode.CONFLICT


def read_private_key(path: Path, what: str) -> PrivateKey:
    """`what` names it in errors: a flag or an argument."""
    text = _read(path, what)
    try:
        return PrivateKey.from_text(text)
    except SigningError as error:
        raise SettingsError(f"{what}: {path}: {error.message}", remedy=error.remedy) from None


def read_public_key(path: Path) -> PublicKey:
    text = _read(path, PUBLIC)
    try:
        return PublicKey.from_text(text)
    except SigningError as error:
        raise SettingsError(f"{path}: {error.message}", remedy=error.remedy) from None


def new_key(directory: Path) -> tuple[Path, Path]:
    """Private and public half; what is there is never overwritten. Raises `OSError`, too."""
    private, public = directory / PRIVATE, directory / PUBLIC
    directory.mkdir(mode=0o700, exist_ok=True)
    key = PrivateKey.generate()
    with contextlib.ExitStack() as undo:
        for path, text, mode in ((private, key.text(), 0o600), (public, key.public.text(), 0o644)):
            _create(path, text, mode)
            undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()
    return private, public


def _create(path: Path, text: str, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise KeyThereError(
            f"{path} is there already; a project with volunteers keeps its key",
            remedy="name another directory",
        ) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("latin-1")  # whatever it is, it is told what
    except OSError as error:
        raise SettingsError(f"{what}: {path} cannot be read: {error.strerror}") from None
