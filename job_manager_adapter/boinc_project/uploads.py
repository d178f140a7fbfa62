"""Uploaded files of receipts, as they lie in a project's upload directory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from job_manager_adapter.boinc_project.checking import (
    MOST_BYTES,
    Counted,
    RefusedError,
    check_file,
)
from job_manager_adapter.boinc_project.names import Upload, parse_upload


def upload_path(directory: Path, fanout: int, name: str) -> Path:
    """BOINC spreads files over `fanout` directories: by digits 2 to 8 of the name's MD5."""
    if not fanout:
        return directory / name
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return directory / f"{int(digest[1:8], 16) % fanout:x}" / name


def check_uploads(
    files: Sequence[Path], keys: Sequence[str], enrolment: str | None = None
) -> tuple[str, list[Counted]]:
    """The result's name and its receipts. Raises RefusedError and OSError."""
    counted: dict[str, Counted] = {}
    results = set()
    for path in files:
        upload = _upload(path, enrolment)
        results.add(upload.result)
        try:
            found = check_file(_read(path), keys, upload.enrolment)
        except RefusedError as error:
            raise RefusedError(f"{path.name}: {error}") from error
        for receipt in found:
            if receipt.id in counted:
                raise RefusedError(f"{path.name}: receipt {receipt.id} comes twice")
            counted[receipt.id] = receipt
    if len(results) > 1:
        raise RefusedError("the files belong to different results")
    return results.pop(), list(counted.values())


def _upload(path: Path, enrolment: str | None) -> Upload:
    upload = parse_upload(path.name)
    if enrolment:
        return Upload(upload.result if upload else path.name.rpartition("_")[0], enrolment)
    if upload is None:
        raise RefusedError(
            f"{path.name} is no file of a workunit copilot_<enrolment id>; make workunits with"
            " make-work, or say --enrolment"
        )
    return upload


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)
