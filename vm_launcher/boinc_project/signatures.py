"""The `.sig` files beside the files of an application version."""

from collections.abc import Iterable
from pathlib import Path

from vm_launcher.boinc_project.signing import (
    PrivateKey,
    PublicKey,
    SigningError,
    is_signature,
    sign_file,
    verify_file,
)
from vm_launcher.boinc_project.version import VERSION_XML

ENDING = ".sig"


def files_to_sign(directory: Path) -> list[Path]:
    """All but version.xml. Raises `SigningError` for what is no application version."""
    if not (directory / VERSION_XML).is_file():
        raise SigningError(
            f"{directory} is no application version: {VERSION_XML} is not there",
            remedy="name the directory that vm-launcher boinc-project has printed",
        )
    found = (path for path in directory.iterdir() if path.is_file())
    return sorted(one for one in found if one.suffix != ENDING and one.name != VERSION_XML)


def unsigned(files: Iterable[Path], key: PublicKey | None) -> list[Path]:
    """Those without a signature. Raises `SigningError` if one is there that does not hold; without
    a key only its form is looked at.
    """
    return [path for path in files if not _is_signed(path, key)]


def sign(files: Iterable[Path], key: PrivateKey) -> list[Path]:
    """Signs those that have no signature; raises before the first if one is there that is wrong."""
    missing = unsigned(files, key.public)
    for path in missing:
        part = path.with_name(f".{path.name}.part")
        part.write_text(sign_file(path, key))
        part.replace(_beside(path))
    return missing


def _is_signed(path: Path, key: PublicKey | None) -> bool:
    signature = _beside(path)
    if not signature.exists():
        return False
    text = signature.read_bytes()[:4096].decode("latin-1")
    holds = is_signature(text) if key is None else verify_file(path, text, key)
    if not holds:
        by = "" if key is None else " by this project's key"
        raise SigningError(
            f"{signature} is no signature of {path.name}{by}",
            remedy="delete it and sign again: vm-launcher boinc-sign KEY DIR",
        )
    return True


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}{ENDING}")
