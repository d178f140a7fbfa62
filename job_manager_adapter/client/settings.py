"""Where the manager is and who we are: flags, then environment, then ~/.config/copilot."""

import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError

from copilot_agent.protocol.base import Strict, Url
from copilot_agent.protocol.errors import CopilotError, ErrorCode

DEFAULT_URL = "http://127.0.0.1:8470"


class ClientSettings(Strict):
    url: Url = DEFAULT_URL
    token: Annotated[SecretStr, Field(min_length=1)]


def config_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "copilot" / "config.toml"


def load_settings(url: str | None = None, token: str | None = None) -> ClientSettings:
    """The first of flag, COPILOT_URL/COPILOT_TOKEN and the configuration file counts, per value.

    Raises CopilotError when there is no token, or when others may read the file with it.
    """
    found = read_config(config_path())
    found.pop("copilot1", None)  # what `copilot copilot1` needs stands there
    for key, flag in (("url", url), ("token", token)):
        if value := flag or os.environ.get(f"COPILOT_{key.upper()}"):
            found[key] = value
    if not found.get("token"):
        raise CopilotError(
            "no token",
            remedy=f'give --token, set COPILOT_TOKEN, or write token = "…" into {config_path()}',
            code=ErrorCode.UNAUTHENTICATED,
        )
    try:
        return ClientSettings.model_validate(found)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        raise CopilotError(
            f"{found.get('url')!r} is no URL" if name == "url" else f"{name} is not valid",
            remedy=f"write it as {DEFAULT_URL}" if name == "url" else "correct or remove it",
            code=ErrorCode.INVALID_REQUEST,
        ) from error


def read_config(path: Path) -> dict[str, object]:
    """{} without a file. Raises CopilotError, also when others can read it."""
    if (text := private_text(path)) is None:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CopilotError(f"{path}: {error}", remedy="correct the file") from error


def private_text(path: Path) -> str | None:
    """None without a file. Raises CopilotError when others can read it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise CopilotError(
            f"{path} holds a secret and others can read it", remedy=f"chmod 600 {path}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CopilotError(f"{path}: {error}", remedy="correct the file") from error
