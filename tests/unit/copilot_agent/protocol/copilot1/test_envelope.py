"""Messages and their acknowledgements."""

import pytest
from hypothesis import given

from copilot_agent.protocol.copilot1.envelope import (
    Envelope,
    ack_of,
    read_envelope,
    write_envelope,
)
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.parsing import parse_stanza, stanza_bytes
from tests.unit.copilot_agent.protocol.copilot1.strategies import envelopes


def read(text: str) -> Envelope:
    return read_envelope(parse_stanza(text.encode()))


@given(envelopes)
def test_any_message_comes_back_as_element_and_as_bytes(envelope: Envelope) -> None:
    assert read_envelope(write_envelope(envelope)) == envelope
    assert read_envelope(parse_stanza(stanza_bytes(envelope))) == envelope


def test_an_ack_has_neither_body_nor_id_and_goes_back_the_same_way() -> None:
    got = read(
        "<message from='a@c.test/1' to='jm@c.test' id='7-e'><body><info command='sleep'/></body>"
        "</message>"
    )
    assert got.wants_ack
    assert stanza_bytes(ack_of(got)) == b"<message from='jm@c.test' to='a@c.test/1' ack='7-e'/>"


@pytest.mark.parametrize(
    "text",
    [
        "<message id='7' noack='1'><body><info command='pong'/></body></message>",
        "<message id='7' ack='6'/>",
        "<message id='7' type='error'><body><info command='getJob'/></body><error/></message>",
        "<message id='7' type='groupchat'><subject/></message>",
        "<message id='7'><body>Hello</body></message>",
        "<message><body><info command='getJob'/></body></message>",
    ],
)
def test_these_want_no_ack(text: str) -> None:
    assert not read(text).wants_ack


def test_what_a_server_sends_back_is_no_command() -> None:
    text = "<message id='7' type='error'><body><info command='getJob'/></body><error/></message>"
    assert read(text) == Envelope(id="7", type="error")


def test_without_an_id_there_is_nothing_to_acknowledge() -> None:
    with pytest.raises(StanzaError, match=r"^id: is missing$"):
        ack_of(Envelope(sender="a@c.test"))


def test_the_elements_of_xmpp_clients_are_the_same_with_their_namespace() -> None:
    inner = "<body><info command='_BASE64:c2xlZXA='/></body>"
    assert read(f"<message xmlns='jabber:client' id='7'>{inner}</message>").info == {
        "command": "sleep"
    }
    assert read(f"<message id='7' xmlns:o='urn:o'><o:body/>{inner}</message>").info is not None
    with pytest.raises(StanzaError, match=r"^stanza: is no message$"):
        read(f"<message xmlns='urn:o' id='7'>{inner}</message>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<iq/>", "stanza: is no message"),
        ("<message><body/><body/></message>", "body: is there more than once"),
        ("<message><body><info/><info/></body></message>", "info: is there more than once"),
        ("<message from='a&#10;b'/>", "from: must be an address of XMPP"),
        (f"<message to='{'x' * 3072}'/>", "to: String should have at most 3071 characters"),
        ("<message id='a b'/>", "id: must be at most 128 signs of ASCII"),
        (f"<message ack='{'x' * 129}'/>", "ack: must be at most 128 signs of ASCII"),
        ("<message type='&lt;x'/>", "type: must be a message's type"),
    ],
    ids=lambda text: text[:30],
)
def test_a_message_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(StanzaError) as refusal:
        read(text)
    assert refusal.value.message == message


def test_hostile_addresses_stay_inside_their_quotes() -> None:
    hostile = Envelope(sender="a@c.test/'/><message to=\"b", id="7'\"<>&", info={"command": "x"})
    assert read_envelope(parse_stanza(stanza_bytes(hostile))) == hostile
