"""Other job queues, measured in the same run as ours."""

from tests.bench.peers.bench import DESCRIPTION, NAME, SECONDS, run
from tests.bench.peers.measure import Peer, best, best_durable, measured

__all__ = [
    "DESCRIPTION",
    "NAME",
    "SECONDS",
    "Peer",
    "best",
    "best_durable",
    "measured",
    "run",
]
