"""What a stream's parser takes, and where it stops."""

import pytest

from copilot_agent.xmpp.errors import XmppError, XmppTrouble
from copilot_agent.xmpp.guard import SLICE_BYTES, GuardedParser, Limits

HEAD = b"<?xml version='1.0'?><stream xmlns='jabber:client'>"
SMALL = Limits(stanza_bytes=10_000, depth=4, elements=10)


def read(data: bytes, slice_bytes: int = SLICE_BYTES, limits: Limits = SMALL) -> list[str]:
    """Names of the elements that ended."""
    parser = GuardedParser(limits)
    found = []
    for start in range(0, len(data), slice_bytes):
        parser.feed(data[start : start + slice_bytes])
        found += [element.tag for kind, element in parser.read_events() if kind == "end"]
    return found


@pytest.mark.parametrize("slice_bytes", [1, 7, SLICE_BYTES])
def test_ordinary_stanzas_pass(slice_bytes: int) -> None:
    stanza = b"<iq id='1'><a><b>text</b></a></iq>"
    names = read(HEAD + stanza * 300, slice_bytes)
    assert names == ["{jabber:client}" + name for name in ("b", "a", "iq")] * 300


@pytest.mark.parametrize("slice_bytes", [1, 2, SLICE_BYTES])
@pytest.mark.parametrize(
    "hostile",
    [
        b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
        b"<?php echo ?>",
        b"<!-- x -->",
        b"<iq><![CDATA[x]]></iq>",
        b"<?xml version='1.0'?>",
    ],
)
def test_what_xmpp_forbids_ends_the_stream(hostile: bytes, slice_bytes: int) -> None:
    with pytest.raises(XmppError) as caught:
        read(HEAD + b"<iq/>" + hostile, slice_bytes)
    assert caught.value.trouble is XmppTrouble.LIMIT


def test_a_document_type_before_the_stream_is_refused() -> None:
    with pytest.raises(XmppError):
        read(b"<?xml version='1.0'?><!DOCTYPE x><stream>")


@pytest.mark.parametrize(
    "stanza",
    [
        b"<iq>" + b"x" * 20_000 + b"</iq>",
        b"<iq>" + b"<a>" * 5 + b"</a>" * 5 + b"</iq>",
        b"<iq>" + b"<a/>" * 11 + b"</iq>",
        b"<iq " + b"a='" + b"x" * 20_000 + b"'/>",
    ],
    ids=["long", "deep", "many", "a long attribute"],
)
def test_a_stanza_too_large_ends_the_stream(stanza: bytes) -> None:
    with pytest.raises(XmppError) as caught:
        read(HEAD + stanza)
    assert caught.value.trouble is XmppTrouble.LIMIT


def test_the_bounds_are_of_one_stanza() -> None:
    stanza = b"<iq>" + b"<a/>" * 9 + b"x" * 3000 + b"</iq>"
    assert len(read(HEAD + stanza * 50)) == 50 * 10
