"""Identifiers: a letter for the kind, a dash, 10 characters of time, 10 of chance (base32)."""

from functools import lru_cache
from typing import Annotated

from pydantic import StringConstraints

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = str.maketrans(_ALPHABET[10:], "abcdefghijklmnopqrstuv")
"""To Python's own digits of base 32."""
_BODY = r"[0-9a-hjkmnp-tv-z]{20}"

JobId = Annotated[str, StringConstraints(pattern=rf"^j-{_BODY}$")]
PilotId = Annotated[str, StringConstraints(pattern=rf"^p-{_BODY}$")]
HostId = Annotated[str, StringConstraints(pattern=rf"^h-{_BODY}$")]
EnrolmentId = Annotated[str, StringConstraints(pattern=rf"^e-{_BODY}$")]
ReceiptId = Annotated[str, StringConstraints(pattern=rf"^r-{_BODY}$")]
CommandId = Annotated[str, StringConstraints(pattern=rf"^c-{_BODY}$")]
BatchId = Annotated[str, StringConstraints(pattern=rf"^b-{_BODY}$")]
TokenId = Annotated[str, StringConstraints(pattern=rf"^t-{_BODY}$")]

ExperimentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Attempt = int


def make_id(kind: str, now: float, chance: int) -> str:
    """An identifier of `kind` (one letter) that sorts by time.

    `now` is Unix time in seconds, `chance` a random integer of 50 bits; both come from the caller
    so that cores and simulations stay deterministic.
    """
    return f"{kind}-{_moment(int(now * 1000))}{_base32(chance)}"


def id_time(ident: str) -> float:
    """When an identifier was made, in Unix time."""
    return int(ident[2:12].translate(_DIGITS), 32) / 1000


_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def _base32(value: int) -> str:
    """The lowest 50 bits."""
    return (
        f"{_PAIRS[value >> 40 & 1023]}{_PAIRS[value >> 30 & 1023]}{_PAIRS[value >> 20 & 1023]}"
        f"{_PAIRS[value >> 10 & 1023]}{_PAIRS[value & 1023]}"
    )


_moment = lru_cache(maxsize=16)(_base32)
"""Many are made in the same millisecond."""
