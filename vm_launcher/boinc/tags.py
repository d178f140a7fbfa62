"""BOINC's hand-written XML: tags are searched for, as the client itself does it.

No parser, so nothing in it (entities, DTDs, unbalanced tags, bytes that are no UTF-8) can do harm.
Every search is linear in the text's length.
"""

import math
import re

MOST_NUMBER = 1e18
"""No number that BOINC tells is larger; one that claims to be is left out."""

_NUMBER = re.compile(r"\s{0,16}([-+]?[0-9]{0,40}(?:\.[0-9]{0,40})?(?:[eE][-+]?[0-9]{1,4})?)")


def has_flag(text: str, name: str) -> bool:
    return f"<{name}/>" in text


def find_number(text: str, name: str) -> float | None:
    """The number right behind the first `<name>`; None without a finite one of sensible size."""
    _, found, rest = text.partition(f"<{name}>")
    match = _NUMBER.match(rest[:128]) if found else None
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        return None
    return number if abs(number) <= MOST_NUMBER else None


def find_text(text: str, name: str) -> str | None:
    """What stands between the first `<name>` and `</name>`; "" for `<name/>`."""
    _, found, rest = text.partition(f"<{name}>")
    if not found:
        return "" if has_flag(text, name) else None
    content, found, _ = rest.partition(f"</{name}>")
    return content if found else None


def without(text: str, name: str) -> str:
    """The text without what stands from the first `<name>` to the last `</name>`."""
    before, opened, rest = text.partition(f"<{name}>")
    _, closed, after = rest.rpartition(f"</{name}>")
    return before + after if opened and closed else text
