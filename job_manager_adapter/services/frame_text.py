"""Frames to pilots as JSON text, put together from pieces.

What goes in was checked when it came to us, so nothing is made into a model once more: an offer
carries the job's specification as it is stored, a receipt the very bytes that were signed.
`ManagerFrame` reads the result.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote

from copilot_agent.protocol.frames import InputLink, OutputLink, VerdictKind
from job_manager_adapter.services.links import OutputPlace


def array(name: str, items: Sequence[str]) -> str:
    return f'"{name}":[{",".join(items)}]'


def head(session: int, acknowledges: int, server_time: float) -> str:
    return f'"session":{session},"acknowledges":{acknowledges},"server_time":{server_time!r}'


def offer(
    job: str,
    attempt: int,
    spec: bytes,
    lease_seconds: float,
    inputs: Sequence[InputLink],
    outputs: Sequence[OutputPlace | OutputLink],
) -> str:
    """`spec` is JSON."""
    return (
        f'{{"job":"{job}","attempt":{attempt},"spec":{spec.decode()},'
        f'"lease_seconds":{lease_seconds!r}{_places(inputs, outputs)}}}'
    )


def links(
    job: str,
    attempt: int,
    inputs: Sequence[InputLink],
    outputs: Sequence[OutputPlace | OutputLink],
) -> str:
    return f'{{"job":"{job}","attempt":{attempt}{_places(inputs, outputs)}}}'


def _places(inputs: Sequence[InputLink], outputs: Sequence[OutputPlace | OutputLink]) -> str:
    text = ""
    if inputs:
        sources = ",".join([link.model_dump_json(exclude_defaults=True) for link in inputs])
        text = f',"inputs":[{sources}]'
    if outputs:
        text += f',"outputs":[{",".join(map(_output, outputs))}]'
    return text


def _output(link: OutputPlace | OutputLink) -> str:
    optional = ',"optional":true' if link.optional else ""
    return (
        f'{{"name":"{link.name}","url":{quote(link.url)},"max_bytes":{link.max_bytes}{optional}}}'
    )


def verdict(job: str, attempt: int, kind: VerdictKind, reason: str = "") -> str:
    why = f',"reason":{quote(reason[:2000])}' if reason else ""
    return f'{{"job":"{job}","attempt":{attempt},"verdict":"{kind.value}"{why}}}'
