"""Enrolment and token renewal, always over HTTP (design, section 10)."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from copilot_agent.protocol.base import PublicKey, Signature, UnixTime, Wire
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Policy
from copilot_agent.protocol.ids import HostId, PilotId
from copilot_agent.protocol.receipt import canonical_json
from copilot_agent.protocol.xmpp import XmppAddress

Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""Enrolment secret: 256 bits in URL-safe base64. Never on a command line, never in a log."""

BearerToken = Annotated[str, StringConstraints(max_length=2048, pattern=r"^[A-Za-z0-9._-]+$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,128}$")]


def enrolment_statement(secret_sha256: str, pilot_key: str) -> bytes:
    """The bytes that a launcher signs to vouch for a pilot's key."""
    return canonical_json({"purpose": "enrol", "secret": secret_sha256, "pilot": pilot_key})


def renewal_statement(pilot: str, nonce: str) -> bytes:
    """The bytes that a pilot signs to prove that it still holds its key."""
    return canonical_json({"purpose": "renew", "pilot": pilot, "nonce": nonce})


class EnrolRequest(Wire):
    """`POST /pilot/v1/enrol`.

    A key of a pilot that was heard of before is refused with `conflict`, so that nobody takes a
    pilot's place by repeating what it said: make another key and have the launcher vouch for it.
    """

    version: Literal[1] = 1
    secret: Secret
    launcher_key: PublicKey
    pilot_key: PublicKey
    signature: Signature
    """By the launcher's key over `enrolment_statement(sha256(secret), pilot_key)`."""
    capabilities: Capabilities


class EnrolReply(Wire):
    pilot: PilotId
    host: HostId
    access_token: BearerToken
    token_expires: UnixTime
    server_time: UnixTime
    policy: Policy
    manager_key: PublicKey
    """Verifies receipts."""
    xmpp: XmppAddress | None = None
    """Where the conversation may go over XMPP, if the manager offers that."""


class ChallengeRequest(Wire):
    """`POST /pilot/v1/challenge`."""

    pilot: PilotId


class ChallengeReply(Wire):
    nonce: Nonce
    server_time: UnixTime


class RenewRequest(Wire):
    """`POST /pilot/v1/renew`; works also long after the token ran out (a VM may sleep)."""

    pilot: PilotId
    nonce: Nonce
    signature: Signature
    """By the pilot's key over `renewal_statement`."""


class RenewReply(Wire):
    access_token: BearerToken
    token_expires: UnixTime
    server_time: UnixTime
    policy: Annotated[Policy | None, Field()] = None
    xmpp: XmppAddress | None = None
