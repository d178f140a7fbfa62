"""BOINC's XML: written by hand in its sources, so read tolerantly here and written line by line."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from html import escape

Element = ElementTree.Element

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HEADER = re.compile(r"^\s*<\?xml[^>]*\?>")


def parse(text: str) -> Element:
    """One element, or several in a row under a root of ours; control characters are dropped."""
    plain = _HEADER.sub("", _UNPRINTABLE.sub("", text))
    root = ElementTree.fromstring(f"<all>{plain}</all>")  # noqa: S314 - both ends are the tests'
    return root[0] if len(root) == 1 else root


def line(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value), quote=False)}</{name}>\n"


def block(name: str, *inside: str) -> str:
    return f"<{name}>\n{''.join(inside)}</{name}>\n"


def flags(names: Iterable[str]) -> str:
    return "".join(f"<{name}/>\n" for name in names)


def text_of(element: Element, name: str, otherwise: str = "") -> str:
    found = element.findtext(name)
    return otherwise if found is None else found.strip()


def number_of(element: Element, name: str, otherwise: float = 0.0) -> float:
    return float(text_of(element, name) or otherwise)


def is_set(element: Element, name: str) -> bool:
    """A flag as BOINC reads it: there and empty, or a number above zero."""
    found = element.find(name)
    if found is None:
        return False
    value = (found.text or "").strip()
    return not value or int(value) > 0


def copied(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode").strip() + "\n"
