"""One value: what the originals write is read, and nothing grows without bound."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.values import MAX_VALUE, PREFIX, decode_value, encode_value
from tests.unit.copilot_agent.protocol.copilot1.strategies import anything


@given(anything)
def test_any_text_comes_back_from_one_line(text: str) -> None:
    assert len(encode_value(text).split()) == 1
    assert decode_value(encode_value(text)) == text


@given(anything, st.sampled_from(["\n", " ", "\r\n", "\t"]))
def test_wrapped_lines_are_read_however_the_server_passes_them_on(text: str, end: str) -> None:
    wrapped = base64.encodebytes((text * 9).encode()).decode().replace("\n", end)
    assert decode_value(PREFIX + wrapped) == text * 9


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("_BASE64:", ""),
        ("_BASE64: \n", ""),
        ("", ""),
        ("_BASE64:d2FudF9nZXRKb2I=\n", "want_getJob"),
        ("_BASE64:d2FudF9nZXRKb2I", "want_getJob"),
        ("want_getJob", "want_getJob"),
        ("__BASE64:bm8=", "__BASE64:bm8="),
        ("_BASE64:w6k=", "é"),
        ("_BASE64:6Q==", "é"),
    ],
)
def test_what_is_on_the_wire_has_this_meaning(raw: str, text: str) -> None:
    assert decode_value(raw) == text


@pytest.mark.parametrize("letters", ["a", "abcde", "a=b=", "ab!=", "YQ===", "_-_-", "ä"])
def test_what_is_no_base64_is_refused(letters: str) -> None:
    with pytest.raises(StanzaError, match=r"^info\.jobID: is not base64$"):
        decode_value(PREFIX + letters, "info.jobID")


@pytest.mark.parametrize(
    "raw",
    [PREFIX + "A" * MAX_VALUE, "x" * (MAX_VALUE + 1), PREFIX + "A" * 10_000_000],
    ids=["base64", "plain", "10 MB"],
)
def test_too_long_a_value_is_refused(raw: str) -> None:
    with pytest.raises(StanzaError, match=r"^value: is longer than 65536 characters$"):
        decode_value(raw)


def test_what_the_other_side_would_refuse_is_not_written() -> None:
    with pytest.raises(StanzaError, match="is longer than"):
        encode_value("x" * MAX_VALUE)
    with pytest.raises(StanzaError, match="is not Unicode text"):
        encode_value("\ud800")
