"""The recorded messages, and what the originals make of a message that they send again."""

import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

from copilot_agent.protocol.copilot1.commands import command_of
from copilot_agent.protocol.copilot1.envelope import Envelope, read_envelope
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.parsing import parse_stanza
from copilot_agent.protocol.copilot1.tree import Tree

_PIECES = re.compile(rb"^(?:#.*|--)$", re.MULTILINE)
"""Remarks, and the marks where something was cut out: no message goes on beyond them."""
_MESSAGE = re.compile(rb"<message\b[^<>]*/>|<message\b(?:(?!<message\b).)*?</message>", re.DOTALL)


def recorded() -> list[bytes]:
    """Every message that is there from its first to its last byte."""
    text = Path(__file__).with_name("recordings.txt").read_bytes()
    return [found for piece in _PIECES.split(text) for found in _MESSAGE.findall(piece)]


def recorded_commands() -> list[tuple[Envelope, Command]]:
    envelopes = [read_envelope(parse_stanza(data)) for data in recorded()]
    return [(one, command_of(one.info)) for one in envelopes if one.info is not None]


def sent_again(envelope: Envelope) -> bytes:
    """The text itself instead of base64, and the address of each nested value beside it."""
    return (
        f"<message to={quoteattr(envelope.recipient)} from={quoteattr(envelope.sender)}"
        f" id={quoteattr(envelope.id)} body='HASH(0x555bb6cc5dd8)'>"
        f"<body info='HASH(0x555bb6ccd9b8)'>{_bare('info', envelope.info or {})}</body></message>"
    ).encode()


def _bare(name: str, tree: Tree) -> str:
    values, children = "", ""
    for key, value in tree.items():
        if isinstance(value, str):
            values += f" {key}='{_escaped(value)}'"
        else:
            values += f" {key}='HASH(0x555bb6ccd9b8)'"
            children += _bare(key, value)
    return f"<{name}{values}>{children}</{name}>"


def _escaped(text: str) -> str:
    """Newlines stay raw, as in the recording."""
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&apos;")
    )
