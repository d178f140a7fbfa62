"""How often an experiment's scheduler is asked."""

import pytest

from job_manager_adapter.services.upstream import pause


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(0, 2, 2), (1, 2, 4), (2, 4, 8), (9, 31, 62), (999, 31, 62)]
)
def test_a_scheduler_in_trouble_is_asked_less_often_and_not_by_all_at_once(
    failures: int, least: float, most: float
) -> None:
    assert pause(2.0, failures, 0.0) == least
    assert pause(2.0, failures, 1.0) == most
