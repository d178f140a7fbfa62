"""Receipts: what the manager says, signed, about the credit of one succeeded attempt."""

import json
from typing import Annotated, Literal

from pydantic import Field

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


class Receipt(Wire):
    statement: Statement
    signature: Signature


def canonical_json(value: object) -> bytes:
    """The one form that is signed everywhere here. Floats as Python's `repr` gives them."""
    return _CANONICAL.encode(value).encode("ascii")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
