"""Receipts: what the manager says, signed, about the credit of one succeeded attempt.

Where many attempts end at the same time, one signature may be for all of them: it is over the root
of a hash tree whose leaves are the statements, and each receipt brings the way from its own
statement up to that root.
"""

import base64
import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from copilot_agent.protocol.base import PublicKey, Seconds, Signature, UnixTime, Wire
from copilot_agent.protocol.ids import EnrolmentId, ExperimentName, JobId, PilotId, ReceiptId

CREDIT_PER_CPU_SECOND = 200 / 86400
"""BOINC's cobblestones: 200 for a day of a reference core."""


class Statement(Wire):
    """The signed part. Canonical form: `canonical()`."""

    version: Literal[1] = 1
    key: PublicKey
    """The manager's public key; it is its own key id."""
    id: ReceiptId
    enrolment: EnrolmentId
    launcher: PublicKey
    pilot: PilotId
    experiment: ExperimentName
    job: JobId
    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    cpu_seconds: Seconds
    """CPU time accepted: the claim, bounded by lease wall time × cores."""
    granted: Annotated[float, Field(ge=0, le=1e9)]
    """Credit, in BOINC's unit."""
    leased_at: UnixTime
    accepted_at: UnixTime

    def canonical(self) -> bytes:
        """JSON with sorted keys, no white space, ASCII only: the bytes that are signed."""
        return canonical_json(self.model_dump())


Proof = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43,1400}$")]
"""Hashes of 32 bytes from the leaf's sibling upwards, one behind the other, in base64."""


class Receipt(Wire):
    statement: Statement
    signature: Signature
    proof: Proof | None = None
    """Without one the signature is over the statement itself."""

    def signed(self) -> bytes:
        """The bytes that the signature must be good for. Raises ValueError for no real proof."""
        if self.proof is None:
            return self.statement.canonical()
        way = base64.urlsafe_b64decode(self.proof + "=" * (-len(self.proof) % 4))
        node = leaf_hash(self.statement.canonical())
        for start in range(0, len(way), 32):
            node = node_hash(node, way[start : start + 32])
        return root_statement(node)


def leaf_hash(statement: bytes) -> bytes:
    return hashlib.sha256(b"\0" + statement).digest()


def node_hash(one: bytes, other: bytes) -> bytes:
    """In either order. Leaves and nodes are told apart by the byte in front (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\1" + (one + other if one < other else other + one)).digest()


def root_statement(root: bytes) -> bytes:
    """The bytes that are signed for a whole tree; they are no statement's canonical form."""
    return b"copilot-receipts-1\n" + root


def canonical_json(value: object) -> bytes:
    """The one form that is signed everywhere here. Floats as Python's `repr` gives them."""
    return _CANONICAL.encode(value).encode("ascii")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
