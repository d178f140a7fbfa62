"""What an agent is told when it starts."""

import pwd
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from copilot_agent.probe import Given


class Carrier(StrEnum):
    XMPP = "xmpp"
    WEBSOCKET = "websocket"
    POLL = "poll"


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
    carriers: tuple[Carrier, ...] = (Carrier.WEBSOCKET, Carrier.POLL)
    """Of the conversation, best first."""
    xmpp_server: tuple[str, int] | None = None
    """Instead of the XMPP server that the manager names."""


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


def carriers(text: str) -> tuple[Carrier, ...]:
    """Names with commas between them. Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in {each.value for each in Carrier}]
    if unknown or len(set(names)) != len(names):
        known = ", ".join(Carrier)
        raise ValueError(f"{text!r} is no list of carriers: each of {known} at most once")
    return tuple(Carrier(name) for name in names)
