"""What an agent is told when it starts."""

import pwd
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.probe import Given


@dataclass(frozen=True)
class PayloadUser:
    """The first of the uids for payloads (one for each that runs at a time), and their group."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Settings:
    manager: str
    state: Path
    """Keys, token, reports: for the agent alone."""
    scratch: Path
    """Where payloads work."""
    given: Given
    window: int = 1
    payload_user: PayloadUser | None = None
    ca_certificates: str = ""
    """PEM."""


def payload_user(text: str) -> PayloadUser:
    """A user's name or a number. Raises ValueError."""
    if text.isdecimal():
        uid = int(text)
        if not 0 < uid < 1 << 31:
            raise ValueError("the payloads' uid must be above 0: payloads never run as root")
        return PayloadUser(uid, uid)
    try:
        entry = pwd.getpwnam(text)
    except KeyError:
        raise ValueError(f"there is no user {text!r}") from None
    if entry.pw_uid == 0:
        raise ValueError("payloads never run as root: name another user")
    return PayloadUser(entry.pw_uid, entry.pw_gid)


def manager_url(text: str) -> str:
    """Raises ValueError."""
    if not text.startswith(("https://", "http://")) or len(text) > 300 or " " in text:
        raise ValueError(f"{text!r} is no URL such as https://manager.example.org:8470")
    return text.rstrip("/")
