"""Joining a chat room: in only when the room says so, and never silently refused."""

from xml.etree.ElementTree import Element

import pytest

from copilot_agent.protocol.copilot1.parsing import parse_stanza
from copilot_agent.xmpp.errors import XmppError
from copilot_agent.xmpp.room import MAX_NICKS, Room

SEAT = "lounge@conference.copilot.test/me"


def stanza(text: str) -> Element:
    return parse_stanza(text.encode())


def presence(codes: str = "", sender: str = SEAT, **attributes: str) -> Element:
    statuses = "".join(f"<status code='{code}'/>" for code in codes.split())
    element = stanza(
        "<presence xmlns='jabber:client'>"
        f"<x xmlns='http://jabber.org/protocol/muc#user'><item/>{statuses}</x></presence>"
    )
    for name, value in {"from": sender, **attributes}.items():
        element.set(name, value)
    return element


async def test_only_the_presence_of_oneself_says_that_one_is_in() -> None:
    room = Room(SEAT)
    assert room.joining().get("to") == SEAT
    for other in (
        presence(sender="lounge@conference.copilot.test/other"),
        presence("110", sender="another@conference.copilot.test/me"),
        presence("110", type="unavailable"),
    ):
        assert list(room.heard(other)) == []
        assert not room.is_in
    assert list(room.heard(presence("110"))) == []
    await room.joined()
    assert room.is_in


async def test_a_new_room_is_opened_to_the_others() -> None:
    room = Room(SEAT)
    room.joining()
    (form,) = room.heard(presence("201 110"))
    assert (form.get("type"), form.get("to")) == ("set", "lounge@conference.copilot.test")
    assert form.find(".//{jabber:x:data}x[@type='submit']") is not None


def refusal(why: str) -> Element:
    return stanza(
        f"<presence xmlns='jabber:client' type='error' from='{SEAT}'><error type='cancel'>"
        f"<{why} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    )


async def test_a_refusal_says_why() -> None:
    room = Room(SEAT)
    room.joining()
    assert list(room.heard(refusal("registration-required"))) == []
    with pytest.raises(XmppError, match="closed to us: registration-required"):
        await room.joined()


async def test_a_nick_that_is_taken_gets_a_number() -> None:
    room = Room(SEAT)
    room.joining()
    tried = [word.get("to") for _ in range(9) for word in room.heard(refusal("conflict"))]
    assert tried == [f"{SEAT}-{number}" for number in range(2, MAX_NICKS + 1)]
    with pytest.raises(XmppError, match="conflict"):
        await room.joined()
    assert room.joining().get("to") == SEAT


async def test_after_a_broken_connection_it_is_joined_anew() -> None:
    room = Room(SEAT)
    room.joining()
    list(room.heard(presence("110")))
    room.joining()
    assert not room.is_in
    list(room.heard(presence("110")))
    await room.joined()
