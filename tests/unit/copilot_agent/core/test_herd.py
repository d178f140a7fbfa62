"""A whole fleet that lost its manager at the same instant comes back; on a clock of its own."""

import heapq
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from copilot_agent.core.events import ConnectionLost, TransportTrouble
from copilot_agent.core.link import Link
from copilot_agent.protocol.frames import ManagerFrame, Policy

PILOTS = 10_000
FLEET_POLICY = Policy(reconnect_seconds=60.0)
"""What a manager tells the pilots of so large a fleet, see its core/clockwork.py."""
ANSWER = ManagerFrame(session=1, server_time=1.0)


@dataclass
class Herd:
    """Pilots that were all attached when the manager went away, at the time 0."""

    outage: float
    refusal_seconds: float = 0.001
    """How long a vain attempt takes: a closed port answers at once, a black hole never does."""
    retry_after: float = 0.0
    """What a proxy in front of the dead manager says."""
    policy: Policy = FLEET_POLICY

    def __post_init__(self) -> None:
        self.attempts: list[float] = []
        """Those that reach a living manager, in their order."""
        self._chance = random.Random(7).random  # noqa: S311 - a schedule, not a secret
        self._due: list[tuple[float, int]] = []
        self._links = [Link() for _ in range(PILOTS)]
        for number, link in enumerate(self._links):
            link.use(self.policy)
            link.tick(0.0)
            link.connected(0.0, self._chance())
            link.received(ANSWER)
            self._lost(number, 0.0)
        while self._due:
            self._try(*heapq.heappop(self._due))

    def _lost(self, number: int, now: float) -> None:
        link = self._links[number]
        trouble = TransportTrouble.UNREACHABLE
        link.lost(ConnectionLost(trouble, "gone", self._chance(), self.retry_after), now)
        assert link.connect_at is not None
        assert link.connect_at >= now + self.retry_after
        heapq.heappush(self._due, (link.connect_at, number))

    def _try(self, now: float, number: int) -> None:
        link = self._links[number]
        assert link.tick(now), "it tries when it said"
        if now < self.outage:
            return self._lost(number, now + self.refusal_seconds)
        self.attempts.append(now)
        assert link.connected(now, self._chance())
        assert link.received(ANSWER)
        return None

    @property
    def back_after(self) -> float:
        """Seconds from the manager's return until the last pilot is attached."""
        assert all(link.attached for link in self._links)
        return self.attempts[-1] - self.outage


def peak(times: Iterable[float]) -> int:
    """The most within any second."""
    most, recent = 0, deque[float]()
    for time in times:
        recent.append(time)
        while recent[0] <= time - 1.0:
            recent.popleft()
        most = max(most, len(recent))
    return most


@pytest.mark.parametrize("refusal_seconds", [0.001, 20.0])
@pytest.mark.parametrize("outage", [1.0, 60.0, 600.0])
def test_ten_thousand_pilots_come_back_spread_and_soon(
    outage: float, refusal_seconds: float
) -> None:
    herd = Herd(outage, refusal_seconds)
    assert len(herd.attempts) == PILOTS
    assert peak(herd.attempts) <= 400
    assert herd.back_after <= 60.0 + refusal_seconds


def test_even_pilots_that_do_not_know_of_the_others_come_back_spread_after_a_minute() -> None:
    herd = Herd(60.0, policy=Policy())
    assert peak(herd.attempts) <= 400
    assert herd.back_after <= 60.0


def test_pilots_wait_as_long_as_a_proxy_says_and_no_two_alike() -> None:
    herd = Herd(60.0, retry_after=30.0)
    assert peak(herd.attempts) <= 400
    assert herd.back_after <= 60.0
