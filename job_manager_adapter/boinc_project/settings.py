"""`copilot-credit.toml` in the project's directory, beside BOINC's config.xml.

A file, because a validator of BOINC's hands nothing of ours on to the script that it runs.
"""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, field_validator

from copilot_agent.protocol.base import Strict
from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.words import dotted, in_words
from job_manager_adapter.boinc_project.checking import MOST_CREDIT

NAME = "copilot-credit.toml"
VARIABLE = "COPILOT_CREDIT_CONFIG"
_SHOWN = "a manager's key has 43 characters, alone or in a file; `copilot whoami` shows it"
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")


class SettingsError(CopilotError):
    """The server's own trouble, never a volunteer's fault."""


class Settings(Strict):
    manager_keys: tuple[str, ...] = ()
    """Public keys of the manager, or files that hold one; former ones stay in the list."""
    ledger: Path | None = None
    app: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "copilot"
    most_credit: Annotated[float, Field(gt=0, le=1e9)] = MOST_CREDIT
    """That one result may earn."""
    database_socket: Path | None = None

    @field_validator("manager_keys", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def load_settings(given: Path | None) -> Settings:
    """`given`, what the environment names, or what lies in the project of the running program.

    Paths in it are relative to it. Raises SettingsError.
    """
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    path = named or project_directory() / NAME
    if named is None and not path.exists():
        return Settings()
    try:
        settings = Settings.model_validate(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {_why(error)}") from error
    keys = tuple(key if _KEY.fullmatch(key) else str(path.parent / key)
                 for key in settings.manager_keys)  # fmt: skip
    ledger = path.parent / settings.ledger if settings.ledger else None
    return settings.model_copy(update={"manager_keys": keys, "ledger": ledger})


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{dotted(first['loc'])}: {in_words(first)}"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return str(error)


def project_directory() -> Path:
    """The programs stand in its bin/."""
    return Path(sys.argv[0]).absolute().parent.parent


def beside(project: Path | None) -> Path | None:
    """The settings of a project that is named, where it has some."""
    path = project / NAME if project else None
    return path if path and path.exists() else None


def public_keys(words: tuple[str, ...]) -> tuple[str, ...]:
    """Each is a key or a file with one in it. Raises SettingsError, also for none at all."""
    if not words:
        raise SettingsError(
            "no public key of the manager is given",
            remedy=f"say --manager-key KEY, or manager_keys in {NAME}; `copilot whoami` shows it",
        )
    return tuple(word if _KEY.fullmatch(word) else _key_in(Path(word)) for word in words)


def _key_in(path: Path) -> str:
    try:
        text = path.read_text()[:1000].strip()
    except FileNotFoundError as error:
        raise SettingsError(f"{path} is not there", remedy=_SHOWN) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {_why(error)}", remedy=_SHOWN) from error
    if not _KEY.fullmatch(text):
        raise SettingsError(f"{path}: no public key of 43 characters is in it", remedy=_SHOWN)
    return text
