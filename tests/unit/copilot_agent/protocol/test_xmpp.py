"""Frames cut into stanzas and put together again."""

import json
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import MAX_FRAME_BYTES
from copilot_agent.protocol.xmpp import (
    FRAME,
    PIECE_CHARACTERS,
    Assembler,
    PieceError,
    add_piece,
    end_element,
    pieces,
    read_end,
)

STANZA_BYTES = 64 * 1024


def through_xml(text: str) -> list[Element]:
    """The pieces as they come out of a parser at the other end."""
    iqs = [add_piece(Element("iq"), *piece, "7") for piece in pieces(text)]
    stanzas = [tostring(iq, encoding="utf-8") for iq in iqs]
    assert max(map(len, stanzas)) < STANZA_BYTES
    return [fromstring(stanza)[0] for stanza in stanzas]  # noqa: S314 - our own


@given(st.dictionaries(st.text(max_size=5), st.text(), max_size=4), st.integers(1, 40))
@example({"a": "\x00\x1f\x7f\x85\u2028\ufffe\uffff&<>'\"\\\r\n\t"}, 1)
@example({"a": "&" * PIECE_CHARACTERS}, 3)
@example({"a": "\U0001f600" * PIECE_CHARACTERS}, 2)
def test_what_is_said_arrives(value: dict[str, str], times: int) -> None:
    said = json.dumps([value] * times, ensure_ascii=False)
    assembler = Assembler()
    *first, last = through_xml(said)
    assert [assembler.add(piece) for piece in first] == [None] * len(first)
    heard = assembler.add(last)
    assert heard is not None
    assert json.loads(heard) == [value] * times


def test_a_frame_has_a_bound() -> None:
    assembler = Assembler()
    piece = Element(FRAME, {"more": "1"})
    piece.text = "x" * PIECE_CHARACTERS
    with pytest.raises(PieceError, match=str(MAX_FRAME_BYTES)):
        for _ in range(MAX_FRAME_BYTES // PIECE_CHARACTERS + 1):
            assembler.add(piece)
    assert not assembler.waiting


def test_a_piece_is_text_of_bounded_length() -> None:
    long, nested = Element(FRAME), Element(FRAME)
    long.text = "x" * (PIECE_CHARACTERS + 1)
    nested.append(Element("a"))
    for piece in (long, nested):
        with pytest.raises(PieceError):
            Assembler().add(piece)


def test_an_end_says_why() -> None:
    element = end_element(ErrorCode.HOST_BANNED, "by the \x00operator", "7")
    end = fromstring(tostring(element))  # noqa: S314 - our own
    assert read_end(end) == (ErrorCode.HOST_BANNED, "by the  operator")
    assert end.get("attach") == "7"


def test_an_unknown_reason_lets_the_pilot_come_back() -> None:
    assert read_end(Element("end", {"code": "of-the-future"}))[0] is ErrorCode.UNAVAILABLE
