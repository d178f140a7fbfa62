"""What every contract model has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PROTOCOL_VERSION = 1
"""Version of the conversation; a peer with another one is refused with `protocol_version`."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hexadecimal."""

Seconds = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
"""A duration; bounded by about four months."""

UnixTime = Annotated[float, Field(ge=0, le=10_000_000_000, allow_inf_nan=False)]
"""Seconds since 1970-01-01 UTC."""

Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
"""A size in bytes."""

Line = Annotated[
    str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]*$")
]
"""One line of text for people: no control characters, no bidirectional overrides."""

Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,2048}$")]
"""URL-safe base64 without padding."""

PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""A raw Ed25519 public key (32 bytes) in URL-safe base64 without padding."""

Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]
"""A raw Ed25519 signature (64 bytes) in URL-safe base64 without padding."""

Url = Annotated[str, StringConstraints(max_length=4096, pattern=r"^https?://[\x21-\x7e]+$")]
"""An http or https URL of printable ASCII."""


HOST_PORT = r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}"
HostPort = Annotated[str, StringConstraints(pattern=rf"^{HOST_PORT}$")]
"""A host's name or address (IPv6 in brackets) and a port."""


def split_host_port(text: str) -> tuple[str, int]:
    """Of `host:port` or `[address]:port`, without brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r} is no host:port such as xmpp.example.org:5222")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Strict(BaseModel):
    """For what people write: an unknown field is a mistake and refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Wire(BaseModel):
    """For what other versions of programs send: unknown fields are ignored, known ones checked."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
