"""One value: text as base64 in an attribute.

The original wraps the base64 at 76 characters and ends it with a newline; servers turn newlines in
attributes into spaces. Its resent copies carry the bare text instead.
"""

import binascii
import re

from copilot_agent.protocol.copilot1.errors import refused

PREFIX = "_BASE64:"
MAX_VALUE = 65_536
"""Characters of a value as it travels."""

_SPACE = str.maketrans("", "", " \t\r\n")
_ALPHABET = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def encode_value(text: str, field: str = "value") -> str:
    """One line, whatever the length. Raises StanzaError."""
    try:
        encoded = PREFIX + binascii.b2a_base64(text.encode(), newline=False).decode("ascii")
    except UnicodeEncodeError as error:
        raise refused(field, "is not Unicode text") from error
    return _bounded(encoded, field)


def decode_value(raw: str, field: str = "value") -> str:
    """The text; without the prefix it is taken as it stands. Raises StanzaError.

    No charset is ever declared: it is UTF-8, or Latin-1 where it cannot be that.
    """
    if not _bounded(raw, field).startswith(PREFIX):
        return raw
    data = _decoded(raw[len(PREFIX) :].translate(_SPACE), field)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _bounded(raw: str, field: str) -> str:
    if len(raw) > MAX_VALUE:
        raise refused(field, f"is longer than {MAX_VALUE} characters")
    return raw


def _decoded(letters: str, field: str) -> bytes:
    """Padding may be missing, as the original's decoder has it; other signs may not be there."""
    bare = letters.rstrip("=")
    if not _ALPHABET.fullmatch(letters) or len(bare) % 4 == 1:
        raise refused(field, "is not base64")
    return binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
