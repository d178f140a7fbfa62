"""Nested values <-> elements."""

from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given

from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.parsing import parse_stanza
from copilot_agent.protocol.copilot1.tree import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    Tree,
    read_tree,
    write_tree,
)
from tests.unit.copilot_agent.protocol.copilot1.strategies import trees


@given(trees)
def test_any_tree_comes_back(tree: Tree) -> None:
    assert read_tree(write_tree(Element("body"), tree)) == tree


def test_junk_of_resent_copies_and_foreign_names_are_skipped() -> None:
    info = parse_stanza(
        b"<info xml:lang='en' job='HASH(0x555bb6cc5dd8)' command='getJob' body='HASH(0x1)'>"
        b"<job id='a' other:id='b' xmlns:other='urn:other'/><job xmlns='urn:other' id='c'/></info>"
    )
    assert read_tree(info) == {"command": "getJob", "job": {"id": "a"}}


def test_two_children_of_one_name_are_refused() -> None:
    with pytest.raises(StanzaError, match=r"^info\.job: is there more than once$"):
        read_tree(parse_stanza(b"<info><job id='a'/><job id='b'/></info>"))


@pytest.mark.parametrize("name", ["", "a b", "xmlns", "XML", "a'", "a:b", "1", "x" * 65])
def test_a_name_that_would_break_the_xml_is_not_written(name: str) -> None:
    with pytest.raises(StanzaError, match=r"^info: a name in it cannot be one in XML$"):
        write_tree(Element("body"), {name: "x"})


def deep(levels: int) -> Tree:
    tree: Tree = {}
    for _ in range(levels - 1):
        tree = {"a": tree}
    return tree


def test_depth_has_a_bound_both_ways() -> None:
    most = MAX_DEPTH - 2  # <message> and <body> are around it
    element = write_tree(Element("body"), deep(most))
    assert read_tree(element) == deep(most)
    with pytest.raises(StanzaError, match="nested more than 16 deep"):
        write_tree(Element("body"), deep(most + 1))
    around = Element("info")
    around.append(element)
    with pytest.raises(StanzaError, match="nested more than 16 deep"):
        read_tree(around)


def test_the_number_of_attributes_has_a_bound_both_ways() -> None:
    element = Element("info", {f"a{number}": "" for number in range(MAX_ATTRIBUTES)})
    tree = read_tree(element)
    assert len(tree) == MAX_ATTRIBUTES
    element.set("more", "")
    with pytest.raises(StanzaError, match=r"^info: more than 256 attributes$"):
        read_tree(element)
    with pytest.raises(StanzaError, match=r"^info: more than 256 attributes$"):
        write_tree(Element("body"), {**tree, "more": ""})


def test_the_number_of_elements_has_a_bound_both_ways() -> None:
    element = Element("info")
    for number in range(MAX_ELEMENTS):
        SubElement(element, f"a{number}")
    with pytest.raises(StanzaError, match="more than 1024 elements"):
        read_tree(element)
    with pytest.raises(StanzaError, match="more than 1024 elements"):
        write_tree(Element("body"), {f"a{number}": {} for number in range(MAX_ELEMENTS)})
