"""Bytes of anybody: an element, or a refusal that costs little."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.commands import command_of
from copilot_agent.protocol.copilot1.envelope import Envelope, read_envelope
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.parsing import MAX_STANZA, parse_stanza, stanza_bytes
from copilot_agent.protocol.errors import ErrorCode
from tests.unit.copilot_agent.protocol.copilot1.recordings import recorded

LAUGHS = b"".join(
    b"<!ENTITY l%d '%s'>" % (number + 1, b"&l%d;" % number * 10) for number in range(9)
)
BOMB = b"<!DOCTYPE m [<!ENTITY l0 'ha'>%s]><message id='&l9;'>&l9;</message>" % LAUGHS
FILE = b"<!DOCTYPE m [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><message id='&f;'/>"

HOSTILE = {
    "many entities": BOMB,
    "many entities in UTF-16": BOMB.decode().encode("utf-16"),
    "a file": FILE,
    "a file after spaces": b" \n" + FILE,
    "another DTD": b"<!DOCTYPE m SYSTEM 'http://127.0.0.1/m.dtd'><message/>",
    "an entity without DTD": b"<message id='&l9;'/>",
    "an instruction": b"<?xml-stylesheet href='x'?><message/>",
    "another charset": b"<?xml version='1.0' encoding='utf-16'?><message/>",
    "a comment": b"<message><!-- x --></message>",
    "a section": b"<message><![CDATA[x]]></message>",
    "a value of 10 MB": b"<message id='%s'/>" % (b"x" * 10_000_000),
    "10 MB without end": b"<message " + b"x" * 10_000_000,
    "depth": b"<a>" * 10_000,
    "depth of 17": b"<a>" * 17 + b"</a>" * 17,
    "elements": b"<a>" + b"<b/>" * 1024 + b"</a>",
    "attributes": b"<a %s/>" % b" ".join(b"a%d=''" % number for number in range(257)),
    "the same attribute twice": b"<message id='1' id='2'/>",
    "a control character": b"<message id='&#1;'/>",
    "half a surrogate": b"<message id='&#xd800;'/>",
    "Latin-1": b"<message id='\xe9'/>",
    "an unknown prefix": b"<x:message/>",
    "no end": b"<message>",
    "two roots": b"<message/><message/>",
    "text": b"hello",
    "nothing": b"",
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused_at_little_cost(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(StanzaError, match=r"^stanza: ") as refusal:
            parse_stanza(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert len(refusal.value.message) < 200


def test_the_bounds_themselves_are_allowed() -> None:
    assert parse_stanza(b"<a>" * 16 + b"</a>" * 16).tag == "a"
    assert len(parse_stanza(b"<a>" + b"<b/>" * 1023 + b"</a>")) == 1023
    assert (
        len(parse_stanza(b"<a %s/>" % b" ".join(b"a%d=''" % n for n in range(256))).attrib) == 256
    )
    longest = b"<a b='%s'/>"
    longest %= b"x" * (MAX_STANZA - len(longest) + 2)
    assert len(longest) == MAX_STANZA
    assert parse_stanza(longest).tag == "a"


def test_no_message_is_written_that_would_not_be_read() -> None:
    with pytest.raises(StanzaError, match=r"^stanza: is longer than 65536 bytes$"):
        stanza_bytes(Envelope(info={"a": "x" * 30_000, "b": "x" * 30_000}))


def understood(data: bytes) -> Command | None:
    """The whole way of what comes over the wire."""
    info = read_envelope(parse_stanza(data)).info
    return None if info is None else command_of(info)


@given(
    st.binary(max_size=200)
    | st.text("<>/!?&;='\"message body info \n", max_size=100).map(str.encode)
)
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    try:
        understood(data)
    except StanzaError as refusal:
        assert ": " in refusal.message


@given(st.sampled_from(recorded()), st.data())
def test_broken_recordings_are_understood_or_refused(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, min(len(data), start + 20)))
    broken = data[:start] + draw.draw(st.binary(max_size=5)) + data[end:]
    try:
        understood(broken)
    except StanzaError as refusal:
        assert ": " in refusal.message
