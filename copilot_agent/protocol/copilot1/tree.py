"""Nested values <-> the <info> element: text in attributes, nested values in child elements."""

import re
from collections.abc import Iterator
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from copilot_agent.protocol.copilot1.errors import refused
from copilot_agent.protocol.copilot1.values import decode_value, encode_value

MAX_DEPTH = 16
MAX_ELEMENTS = 1024
MAX_ATTRIBUTES = 256
"""Of one element."""

Tree: TypeAlias = dict[str, "str | Tree"]
"""A name holds text or nested values. Names are those of XML, `xml...` apart, of 64 characters."""

NAMESPACE = "{jabber:client}"
_NAME = re.compile(r"(?!xml)[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.IGNORECASE)
_JUNK = re.compile(r"HASH\(0x[0-9a-f]{1,16}\)")
"""What the original writes for a nested value in its resent copies, beside the child itself."""


def local_name(name: str) -> str:
    """Without the namespace of XMPP clients; names of other namespaces stay as they are."""
    return name.removeprefix(NAMESPACE)


def read_tree(element: Element) -> Tree:
    """Attributes and children with foreign names are skipped. Raises StanzaError."""
    return _read(element, local_name(element.tag), 3, _Bounds())


class _Bounds:
    """Counts what one message may hold; <message> and <body> are around the tree."""

    def __init__(self) -> None:
        self._left = MAX_ELEMENTS - 2

    def take(self, field: str, depth: int, attributes: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise refused(field, f"more than {MAX_ELEMENTS} elements")
        if depth > MAX_DEPTH:
            raise refused(field, f"nested more than {MAX_DEPTH} deep")
        if attributes > MAX_ATTRIBUTES:
            raise refused(field, f"more than {MAX_ATTRIBUTES} attributes")


def _read(element: Element, field: str, depth: int, bounds: _Bounds) -> Tree:
    bounds.take(field, depth, len(element.attrib))
    nested: Tree = {}
    for child in element:
        name = local_name(child.tag)
        if not _NAME.fullmatch(name):
            continue
        if name in nested:
            raise refused(f"{field}.{name}", "is there more than once")
        nested[name] = _read(child, f"{field}.{name}", depth + 1, bounds)
    return {**dict(_values(element, field)), **nested}


def _values(element: Element, field: str) -> Iterator[tuple[str, str]]:
    for name, raw in element.attrib.items():
        if _NAME.fullmatch(name) and not _JUNK.fullmatch(raw):
            yield name, decode_value(raw, f"{field}.{name}")


def write_tree(parent: Element, tree: Tree, name: str = "info") -> Element:
    """The new child of `parent`, with the tree in it. Raises StanzaError."""
    return _write(parent, tree, name, name, 3, _Bounds())


def _write(
    parent: Element, tree: Tree, name: str, field: str, depth: int, bounds: _Bounds
) -> Element:
    bounds.take(field, depth, sum(isinstance(value, str) for value in tree.values()))
    element = SubElement(parent, NAMESPACE + name)
    for key, value in tree.items():
        if not _NAME.fullmatch(key):
            raise refused(field, "a name in it cannot be one in XML")
        if isinstance(value, str):
            element.set(key, encode_value(value, f"{field}.{key}"))
        elif not isinstance(value, dict):
            raise refused(f"{field}.{key}", "must be text or nested values")
        else:
            _write(element, value, key, f"{field}.{key}", depth + 1, bounds)
    return element


class Writable:
    """Mark of a field, as in `Annotated[Tree, Writable()]`: what cannot be written is refused."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_checked)


def _checked(value: object) -> Tree:
    if not isinstance(value, dict):
        raise ValueError("must hold named values")  # noqa: TRY004 - pydantic's convention
    write_tree(Element("check"), value)
    return value
