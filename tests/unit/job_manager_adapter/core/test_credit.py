from copilot_agent.protocol.job import Outcome
from job_manager_adapter.core.credit import accepted_cpu, granted


def test_a_day_of_one_core_is_two_hundred() -> None:
    assert granted(Outcome.SUCCEEDED, 86400, None) == 200


def test_the_owners_reference_wins() -> None:
    assert granted(Outcome.SUCCEEDED, 5, 86400) == 200


def test_only_success_earns() -> None:
    assert granted(Outcome.FAILED, 86400, 86400) == 0


def test_no_core_works_longer_than_its_lease() -> None:
    assert accepted_cpu(1000, 60, 2) == 120
    assert accepted_cpu(100, 60, 2) == 100
    assert accepted_cpu(100, -5, 2) == 0
