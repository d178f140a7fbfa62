"""How fast one connection may talk."""

import asyncio

import pytest

from job_manager_adapter.transports.pace import MOST_REMEMBERED, Pace, Paces


def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    pace = Pace(rate=10, burst=5)
    assert [pace.delay(100.0) for _ in range(5)] == [0.0] * 5
    assert pace.delay(100.0) == pytest.approx(0.1)
    assert pace.delay(100.0) == pytest.approx(0.2)


def test_silence_fills_the_bucket_but_no_further() -> None:
    pace = Pace(rate=10, burst=5)
    for _ in range(5):
        pace.delay(100.0)
    assert [pace.delay(10_000.0) for _ in range(5)] == pytest.approx([0.0] * 5, abs=1e-6)
    assert pace.delay(10_000.0) == pytest.approx(0.1, abs=1e-6)


def test_a_usual_heartbeat_never_waits() -> None:
    pace = Pace(rate=20, burst=200)
    assert all(pace.delay(float(second)) == 0 for second in range(1, 5000))


def test_who_has_done_something_may_say_more() -> None:
    pace = Pace(rate=10, burst=5)
    for _ in range(200):
        assert pace.delay(100.0) == 0.0
        pace.forgive(1)
    assert [pace.delay(100.0) for _ in range(5)] == pytest.approx([0.0] * 5, abs=1e-6)
    assert pace.delay(100.0) == pytest.approx(0.1)


async def test_who_comes_too_often_waits_and_nobody_else_does() -> None:
    paces = Paces(rate=0.001, burst=2)
    for _ in range(2):
        await paces.keep("greedy")
    greedy = asyncio.create_task(paces.keep("greedy"))
    await paces.keep("modest")
    assert not greedy.done()
    greedy.cancel()


async def test_names_without_end_cost_no_memory() -> None:
    paces = Paces(rate=1, burst=1)
    for number in range(MOST_REMEMBERED + 10):
        await paces.keep(str(number))
    assert len(paces._paces) == MOST_REMEMBERED
