"""How much an attempt earns (design, section 10)."""

from copilot_agent.protocol.job import Outcome
from copilot_agent.protocol.receipt import CREDIT_PER_CPU_SECOND

MAX_CPU_SECONDS = 1e7
"""Bound of the receipt's field."""


def accepted_cpu(claimed: float, lease_seconds: float, cores: int) -> float:
    """CPU seconds that are believed: no core can have worked longer than the lease."""
    return min(claimed, max(lease_seconds, 0.0) * cores, MAX_CPU_SECONDS)


def granted(outcome: Outcome, accepted: float, reference_cpu_seconds: float | None) -> float:
    """Credit in BOINC's unit; only success earns any."""
    if outcome is not Outcome.SUCCEEDED:
        return 0.0
    seconds = accepted if reference_cpu_seconds is None else reference_cpu_seconds
    return seconds * CREDIT_PER_CPU_SECOND
