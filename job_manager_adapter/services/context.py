"""What services are given from outside: clocks, identifiers, the manager's key, settings."""

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.frames import Policy
from copilot_agent.protocol.ids import make_id

_FIFTY_BITS = (1 << 50) - 1


class Clock(Protocol):
    def time(self) -> float:
        """Unix time, for what people and other machines read."""

    def monotonic(self) -> float:
        """Seconds that never jump, for leases."""


class SystemClock:
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Ids(Protocol):
    def make(self, kind: str) -> str:
        """A fresh identifier of `kind`, see `protocol.ids`."""

    def secret(self) -> str:
        """256 random bits in URL-safe base64 without padding."""


class RandomIds:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chance = b""
        self._used = 0

    def make(self, kind: str) -> str:
        if self._used >= len(self._chance):  # one system call for many identifiers
            self._chance, self._used = secrets.token_bytes(7 * 256), 0
        chance = self._chance[self._used : self._used + 7]
        self._used += 7
        number = int.from_bytes(chance, "big") & _FIFTY_BITS
        return make_id(kind, self._clock.time(), number)

    def secret(self) -> str:
        return secrets.token_urlsafe(32)


class Signer(Protocol):
    """The manager's Ed25519 key."""

    @property
    def public_key(self) -> str: ...

    def sign(self, message: bytes) -> str: ...


class Ed25519Signer:
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = base64url(key.public_key().public_bytes_raw())

    @property
    def public_key(self) -> str:
        return self._public

    def sign(self, message: bytes) -> str:
        return base64url(self._key.sign(message))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Experiment:
    """One experiment of the manager's configuration."""

    name: str
    adapter: str = "queue"
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """Settings that services need; durations in seconds."""

    experiments: Mapping[str, Experiment]
    policy: Policy = field(default_factory=Policy)
    retry_seconds: float = 0.0
    """Rest after a first charged failure, then doubling; 0: none."""
    max_boots: int = 50
    """How often one launcher may enrol with the same secret."""
    retention_seconds: float = 30 * 86400.0
    """Finished jobs, their files and old idempotency keys go after this."""
    events_kept: int = 100_000
    nonce_seconds: float = 300.0
