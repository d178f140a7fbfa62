"""What is wrong with a field, in words of people rather than in regular expressions."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from copilot_agent.protocol.base import HOST_PORT

_ID = re.compile(r"^\^([a-z])-\[0-9a-hjkmnp-tv-z\]\{20\}\$$")
_FILE_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}"

PATTERNS: Mapping[str, str] = {
    rf"^{_FILE_PART}(/{_FILE_PART}){{0,7}}$": (
        "a plain relative path such as data/events.lhe: letters, digits and ._+-, no part begins "
        "with a dot, at most 8 parts"
    ),
    r"^[0-9a-f]{64}$": "a SHA-256: 64 hexadecimal digits in lower case",
    r"^https?://[\x21-\x7e]+$": "an address that begins with https:// or http://, without spaces",
    r"^[a-z][a-z0-9-]{0,31}$": (
        "lower-case letters, digits and dashes, a letter first, at most 32 characters"
    ),
    r"^[^\x00]*$": "text without NUL characters",
    r"^[A-Za-z0-9][A-Za-z0-9 ._=:/+-]{0,127}$": (
        "letters, digits, spaces and ._=:/+-, a letter or digit first, at most 128 characters"
    ),
    r"^[A-Za-z_][A-Za-z0-9_]{0,127}$": "a variable's name: letters, digits and _, no digit first",
    r"^[a-z][a-z0-9_.-]{0,62}$": (
        "lower-case letters, digits and _.-, a letter first, at most 63 characters"
    ),
    r"^[a-z0-9]+/[a-z0-9_]+$": "system/processor, such as linux/x86_64",
    r"^[a-z0-9_]{1,24}$": "a processor's flag as in /proc/cpuinfo, such as avx2",
    r"^[A-Za-z0-9_-]{43}$": "a public key as `copilot whoami` shows it: 43 letters, digits, _, -",
    r"^[A-Za-z0-9_-]{1,64}$": "letters, digits, _ and -, at most 64 characters",
    r"^[A-Za-z0-9._:-]{1,128}$": "letters, digits and ._:-, at most 128 characters",
    r"^[^\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]*$": "one line without control characters",
    r"^[a-z][a-z0-9_.-]{0,62}=.{1,128}$": (
        "KEY=VALUE, the key of lower-case letters, digits and _.-, a letter first"
    ),
    r"^[a-z][a-z0-9_-]{0,31}$": (
        "lower-case letters, digits, _ and -, a letter first, at most 32 characters"
    ),
    r"^(\d+)-(\d+)(?::(\d+))?$": "a range such as 1-100, or 0-90:10",
    rf"^{HOST_PORT}$": "host:port, such as xmpp.example.org:5222",
    rf"^({HOST_PORT})?$": "host:port, such as xmpp.example.org:5222, or nothing",
    r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$": "a domain in lower case, such as pilots.example.org",
}
_KINDS = {
    "j": "job",
    "p": "pilot",
    "h": "host",
    "b": "batch",
    "e": "enrolment",
    "t": "token",
}


_SAID: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "no such field",
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "greater_than": "must be more than {gt}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path, as text",
    "tuple_type": 'must be a list, such as ["a", "b"]',
}


def dotted(location: Iterable[int | str]) -> str:
    """Where a field is, as in `inputs[1].sha256`; at most 500 characters."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step != "[key]":
            text += f".{step[:100]}"
    return text.lstrip(".")[:500]


def in_words(error: ErrorDetails) -> str:
    """What must be, or what is wrong. Never repeats what came."""
    context: Mapping[str, Any] = error.get("ctx") or {}
    if error["type"] == "string_pattern_mismatch":
        return f"must be {allowed(str(context.get('pattern', '')))}"
    if said := _SAID.get(error["type"]):
        return said.format_map(context)
    return error["msg"].removeprefix("Value error, ").replace("Input should", "must")


def allowed(pattern: str) -> str:
    """What a regular expression of ours allows."""
    if found := _ID.match(pattern):
        kind = _KINDS.get(found[1], "")
        owner = f"a {kind}'s" if kind else "an"
        return f"{owner} id, as in {found[1]}-01m83d2mtjecnwwa4kfa"
    return PATTERNS.get(pattern, "written in another way")
