"""What a check is and what it finds."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol

from vm_launcher.settings import VmSettings


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Question:
    """What is to be looked at; a check of something that was not named is left out."""

    vm: VmSettings
    state: Path | None = None
    image: Path | None = None
    image_key: Path | None = None
    manager: str | None = None


class Check(Protocol):
    """Looks at one thing; changes nothing."""

    name: ClassVar[str]

    def look(self, question: Question) -> Finding | None:
        """None when the question leaves it out."""
