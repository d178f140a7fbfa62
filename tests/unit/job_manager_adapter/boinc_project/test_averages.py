"""BOINC's recent average credit."""

import math

import pytest

from job_manager_adapter.boinc_project.averages import DAY, HALF_LIFE, grown


def test_a_first_piece_of_work_is_work_by_its_days() -> None:
    assert grown(0.0, 0.0, 30.0, started=1e9, now=1e9 + 3 * DAY) == 10.0


@pytest.mark.parametrize("started", [1e9, 2e9])
def test_a_first_piece_without_a_duration_stays_bounded(started: float) -> None:
    assert grown(0.0, 0.0, 1.0, started, now=1e9) == DAY / 60


def test_without_work_it_halves_in_a_week() -> None:
    assert grown(100.0, 1e9, 0.0, 0.0, now=1e9 + HALF_LIFE) == pytest.approx(50.0)


def test_steady_work_keeps_it() -> None:
    average, at = 24.0, 1e9
    for _ in range(1000):
        average, at = grown(average, at, 1.0, at, at + DAY / 24), at + DAY / 24
    assert average == pytest.approx(24.0)


@pytest.mark.parametrize("passed", [0.0, 1e-3, -5.0])
def test_work_in_no_time_at_all_adds_its_share(passed: float) -> None:
    found = grown(10.0, 1e9, 7.0, 1e9, now=1e9 + passed)
    assert found == pytest.approx(10.0 + math.log(2) * 7.0 / 7, rel=1e-6)


def test_many_small_pieces_are_worth_one_large() -> None:
    many, at = 10.0, 1e9
    for _ in range(100):
        many, at = grown(many, at, 1.0, at, at + 0.1), at + 0.1
    assert many == pytest.approx(grown(10.0, 1e9, 100.0, 1e9, 1e9 + 10.0), rel=1e-4)
