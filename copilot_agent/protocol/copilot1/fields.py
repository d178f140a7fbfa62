"""Kinds of fields, each refused in words at the door."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints

from copilot_agent.protocol.copilot1.wait_status import is_wait_status

_PART = r"[A-Za-z0-9_][A-Za-z0-9._+@:-]{0,127}"
_GUEST_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._+@:-]{1,128}"


def shaped(pattern: str, words: str) -> AfterValidator:
    """Lets through what `pattern` matches as a whole; `words` go on after "must be"."""
    shape = re.compile(pattern)

    def check(value: str) -> str:
        if not shape.fullmatch(value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


JobName = Annotated[
    str,
    shaped(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        "letters, digits and ._-, a letter or digit first, at most 128 characters",
    ),
]
"""A job's id; the original pastes it into shell commands and paths on both sides."""

FileName = Annotated[
    str,
    shaped(
        r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}",
        "a plain file name: letters, digits and ._+-, at most 128 characters",
    ),
]
"""A file in the job's directory."""

ChirpPath = Annotated[
    str,
    shaped(
        rf"/?{_PART}(?:/{_PART}){{0,15}}",
        "a path of letters, digits and ._+@:-, no part begins with a sign, at most 16 parts",
    ),
]
"""A directory on a Chirp server, from its top; `.__acl` there says who may do what."""

GuestPath = Annotated[
    str,
    shaped(
        rf"(?:/{_GUEST_PART}){{1,16}}",
        "an absolute path of letters, digits and ._+@:-, without '..', at most 16 parts",
    ),
]
"""A file that must be in the guest."""

ChirpUrl = Annotated[
    str, shaped(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}", "host:port, as in chirp.org:9094")
]

Package = Annotated[str, shaped(r"[A-Za-z0-9][A-Za-z0-9._@:+/-]{0,255}", "VO_X@Name::Version")]

Jid = Annotated[
    str,
    StringConstraints(max_length=3071),
    shaped(r"[^\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]*", "an address of XMPP"),
]
"""An address, or nothing; a resource may hold nearly every sign."""

MessageId = Annotated[str, shaped(r"[\x21-\x7e]{0,128}", "at most 128 signs of ASCII")]
"""What acknowledgements refer to, or nothing."""

Text = Annotated[
    str,
    StringConstraints(max_length=32_768),
    shaped(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*", "text without control characters"),
]
"""May have several lines."""


def _wait_status(value: int) -> int:
    if not is_wait_status(value):
        raise ValueError("must be a wait status, such as 768 for exit code 3")
    return value


WaitStatus = Annotated[int, AfterValidator(_wait_status), PlainSerializer(str)]

Measure = Annotated[
    float,
    Field(allow_inf_nan=False),
    PlainSerializer(lambda value: f"{value:.0f}" if value.is_integer() else repr(value)),
]
"""A number with or without a fraction."""


def joined_by(separator: str) -> tuple[BeforeValidator, PlainSerializer]:
    """A tuple that travels as one text; empty items are skipped. None separates at any space."""

    def split(value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for part in value.split(separator.strip() or None) if part)

    return BeforeValidator(split), PlainSerializer(separator.join)


_files, _packages = joined_by("###"), joined_by(" ")
FileNames = Annotated[tuple[FileName, ...], Field(max_length=256), *_files]
Packages = Annotated[tuple[Package, ...], Field(max_length=256), *_packages]
