from hypothesis import given
from hypothesis import strategies as st

from job_manager_adapter.core.retries import rest_seconds


def test_it_doubles_up_to_five_minutes() -> None:
    rests = [rest_seconds(failures, 1.0, 1.0) for failures in range(12)]
    assert rests == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.integers(1, 10_000), st.floats(0.001, 3600), st.floats(0, 1))
def test_half_is_chance(failures: int, first: float, chance: float) -> None:
    longest = rest_seconds(failures, first, 1.0)
    assert longest / 2 <= rest_seconds(failures, first, chance) <= longest <= 300 * first
