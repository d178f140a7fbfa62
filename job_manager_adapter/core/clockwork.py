"""How often the pilots of a fleet may speak: the more there are, the less each of them."""

import math

from copilot_agent.protocol.frames import Policy

HEARTBEATS_PER_SECOND = 500
RECONNECTS_PER_SECOND = 360
"""Of the whole fleet, after an outage; pilots come back in the second half of their first pause."""
_LONGEST_RECONNECT = 60.0
_SMALL = 100
_STEP = 1.25
"""The fleet's size is rounded up to a power of this, so that a policy seldom changes."""


class Clockwork:
    """`policy` stays the same object for as long as nothing changes."""

    def __init__(self, base: Policy) -> None:
        self._base = base
        self.policy = base

    def resize(self, pilots: int) -> None:
        policy = for_fleet(self._base, pilots)
        if policy != self.policy:
            self.policy = policy


def for_fleet(base: Policy, pilots: int) -> Policy:
    """`base` for a small fleet. A silent pilot still says three times in a lease that it lives."""
    if pilots <= _SMALL:
        return base
    size = _SMALL * _STEP ** math.ceil(math.log(pilots / _SMALL, _STEP))
    seldom = min(size / HEARTBEATS_PER_SECOND, base.lease_seconds / 3)
    pause = min(2 * size / RECONNECTS_PER_SECOND, _LONGEST_RECONNECT)
    return base.model_copy(
        update={
            "heartbeat_seconds": max(base.heartbeat_seconds, seldom),
            "reconnect_seconds": max(base.reconnect_seconds, pause),
        }
    )
