"""The peers' own figures."""

from tests.bench.frame import Frame
from tests.bench.peers.measure import measured
from tests.bench.results import Result

NAME = "peers"
DESCRIPTION = "jobs that do nothing through procrastinate, taskiq, Celery and HyperQueue"
SECONDS = 400.0


async def run(frame: Frame) -> list[Result]:
    """One rate per peer. A quick run has none, because peers need installing."""
    found = await measured(frame)
    if not found and not frame.quick:
        raise RuntimeError("no peer could be measured")
    return [Result(f"peers.{peer.key}", peer.rate, "/s", cpu_us=peer.cpu_us) for peer in found]
