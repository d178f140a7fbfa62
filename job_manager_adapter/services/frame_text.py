"""Frames to pilots as JSON text, put together from pieces.

What goes in was checked when it came to us, so nothing is made into a model once more: an offer
carries the job's specification as it is stored, a receipt the very bytes that were signed.
`ManagerFrame` reads the result.
"""

import json
from collections.abc import Iterable, Sequence

from copilot_agent.protocol.frames import InputLink, OutputLink, VerdictKind


def manager_frame(head: str, **arrays: Sequence[str]) -> str:
    """A frame of `head` (its first fields, without braces) and what is not empty of the arrays."""
    parts = [head, *(f'"{name}":[{",".join(items)}]' for name, items in arrays.items() if items)]
    return "{" + ",".join(parts) + "}"


def head(session: int, acknowledges: int, server_time: float) -> str:
    return f'"session":{session},"acknowledges":{acknowledges},"server_time":{server_time!r}'


def offer(
    job: str,
    attempt: int,
    spec: bytes,
    lease_seconds: float,
    inputs: Sequence[InputLink],
    outputs: Sequence[OutputLink],
) -> str:
    """`spec` is JSON."""
    links = _links("inputs", inputs) + _links("outputs", outputs)
    return (
        f'{{"job":"{job}","attempt":{attempt},"spec":{spec.decode()},'
        f'"lease_seconds":{lease_seconds!r}{links}}}'
    )


def links(
    job: str, attempt: int, inputs: Sequence[InputLink], outputs: Sequence[OutputLink]
) -> str:
    both = _links("inputs", inputs) + _links("outputs", outputs)
    return f'{{"job":"{job}","attempt":{attempt}{both}}}'


def _links(name: str, links: Iterable[InputLink | OutputLink]) -> str:
    texts = [link.model_dump_json(exclude_defaults=True) for link in links]
    return f',"{name}":[{",".join(texts)}]' if texts else ""


def verdict(job: str, attempt: int, kind: VerdictKind, reason: str = "") -> str:
    why = f',"reason":{json.dumps(reason[:2000])}' if reason else ""
    return f'{{"job":"{job}","attempt":{attempt},"verdict":"{kind.value}"{why}}}'
