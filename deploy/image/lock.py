"""The lock file: which Debian packages make an image, by version, size and SHA-256.

It holds no address: packages come from the mirror that the machine's apt uses.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deploy.image.problems import BuildError

LOCK_FILE = Path(__file__).parent / "lock.json"
REQUIREMENTS_IN = Path(__file__).parent / "requirements.in"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Package(_Model):
    """One .deb; `size` in bytes."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]{1,120}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+~:-]{1,120}$")]
    suite: Literal["bookworm", "trixie"]
    size: Annotated[int, Field(gt=0, lt=1 << 30)]
    sha256: Sha256


class Lock(_Model):
    """`snapshot` is the newest date of the archive's signed release files that were read."""

    version: Literal[1] = 1
    serial: Annotated[int, Field(ge=1)]
    snapshot: dt.datetime
    kernel: Package
    packages: tuple[Package, ...]

    @property
    def epoch(self) -> int:
        return int(self.snapshot.timestamp())

    def every_package(self) -> tuple[Package, ...]:
        return (self.kernel, *self.packages)


def read_lock(path: Path = LOCK_FILE) -> Lock:
    if not path.is_file():
        raise BuildError(f"{path.name} is missing", "run: python -m deploy.image lock")
    try:
        return Lock.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise BuildError(
            f"{path} is not a lock file: {error}", "restore it from the repository"
        ) from None


def write_lock(lock: Lock, path: Path = LOCK_FILE) -> None:
    path.write_text(lock.model_dump_json(indent=1) + "\n")


def next_serial(old: int, snapshot: dt.datetime) -> int:
    """Serials look like 2026112301 and always grow."""
    return max(old + 1, int(snapshot.strftime("%Y%m%d")) * 100 + 1)
