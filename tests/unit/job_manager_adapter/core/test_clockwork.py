import pytest

from copilot_agent.protocol.frames import Policy
from job_manager_adapter.core.clockwork import Clockwork, for_fleet

BASE = Policy(heartbeat_seconds=30.0, lease_seconds=300.0)


def test_a_small_fleet_keeps_what_the_operator_has_set() -> None:
    assert for_fleet(BASE, 0) == for_fleet(BASE, 100) == BASE


@pytest.mark.parametrize("pilots", [101, 1000, 10_000, 15_000, 100_000])
def test_a_large_fleet_speaks_no_faster_than_its_manager_can_hear(pilots: int) -> None:
    policy = for_fleet(BASE, pilots)
    assert pilots / policy.heartbeat_seconds <= 500 or policy.heartbeat_seconds == 100.0
    assert pilots / (policy.reconnect_seconds / 2) <= 400 or policy.reconnect_seconds == 60.0
    assert 3 * policy.heartbeat_seconds <= policy.lease_seconds


def test_one_pilot_more_seldom_changes_anything() -> None:
    clockwork = Clockwork(BASE)
    policies = []
    for pilots in range(10_000):
        clockwork.resize(pilots)
        policies.append(clockwork.policy)
    assert len({id(each) for each in policies}) <= 25
