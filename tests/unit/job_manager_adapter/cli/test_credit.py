"""Figures of `copilot credit show`."""

import pytest

from job_manager_adapter.cli.credit import rounded


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (0.0032, "0.0032"), (0.5, "0.50"), (12.345, "12.35"), (3.2e-12, "0.000000000")],
)
def test_small_amounts_are_more_than_nothing(amount: float, text: str) -> None:
    assert rounded(amount) == text
