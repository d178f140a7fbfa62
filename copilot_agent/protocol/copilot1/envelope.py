"""One message: who says what to whom, and what is acknowledged."""

from typing import Annotated, TypeAlias
from xml.etree.ElementTree import Element, SubElement

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from copilot_agent.protocol.copilot1.errors import refusal_of, refused
from copilot_agent.protocol.copilot1.fields import Jid, MessageId, shaped
from copilot_agent.protocol.copilot1.tree import (
    NAMESPACE,
    Tree,
    Writable,
    local_name,
    read_tree,
    write_tree,
)

MessageType: TypeAlias = Annotated[str, shaped(r"[a-z]{0,16}", "a message's type")]


class Envelope(BaseModel):
    """Either carries `info` under an `id`, or acknowledges (`ack`) the one that did."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    sender: Jid = Field("", alias="from")
    recipient: Jid = Field("", alias="to")
    id: MessageId = ""
    ack: MessageId = ""
    noack: bool = False
    """The sender wants no acknowledgement."""
    type: MessageType = ""
    info: Annotated[Tree, Writable()] | None = None

    @property
    def wants_ack(self) -> bool:
        """The originals send a message for a day, or for ever, until it is acknowledged."""
        return bool(self.id) and self.info is not None and not self.noack


def ack_of(envelope: Envelope) -> Envelope:
    """From the very address that was written to; no id, no body. Raises StanzaError."""
    if not envelope.id:
        raise refused("id", "is missing")
    return Envelope(sender=envelope.recipient, recipient=envelope.sender, ack=envelope.id)


def read_envelope(element: Element) -> Envelope:
    """Foreign attributes and elements are skipped. Raises StanzaError.

    A message of type `error` has no info here: what a server sends back is no command.
    """
    if local_name(element.tag) != "message":
        raise refused("stanza", "is no message")
    attributes = {name: element.get(name, "") for name in ("from", "to", "id", "ack", "type")}
    try:
        return Envelope.model_validate(
            {
                **attributes,
                "noack": element.get("noack", "") not in ("", "0"),
                "info": None if attributes["type"] == "error" else _info(element),
            }
        )
    except ValidationError as error:
        raise refusal_of(error) from error


def _info(message: Element) -> Tree | None:
    body = _only(message, "body")
    info = None if body is None else _only(body, "info")
    return None if info is None else read_tree(info)


def _only(parent: Element, name: str) -> Element | None:
    found = [child for child in parent if local_name(child.tag) == name]
    if len(found) > 1:
        raise refused(name, "is there more than once")
    return found[0] if found else None


def write_envelope(envelope: Envelope) -> Element:
    """In the namespace of XMPP clients. Raises StanzaError."""
    message = Element(NAMESPACE + "message")
    plain = envelope.model_dump(by_alias=True, exclude={"noack", "info"})
    for name, value in plain.items():
        if value:
            message.set(name, value)
    if envelope.noack:
        message.set("noack", "1")
    if envelope.info is not None:
        write_tree(SubElement(message, NAMESPACE + "body"), envelope.info)
    return message
