"""Thousands of schedules of faults; each replays from its seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import told
from tests.simulation.faults import XMPP_FAULTS
from tests.simulation.runner import FULL, run
from tests.simulation.schedule import Carrier, plan

BASE = int(os.environ.get("COPILOT_SIMULATION_BASE", "1"))


def test_nothing_is_lost_and_nothing_twice_in_thousands_of_schedules(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = run(range(BASE, BASE + FULL))
    with capsys.disabled():
        print(f"\nbase seed {BASE}\n{summary.table()}")
        print(summary.told())
    assert not summary.failures and not summary.missed, told(summary)


def test_a_schedule_has_pilots_jobs_and_faults_enough() -> None:
    for seed in range(BASE, BASE + 300):
        one = plan(seed)
        kinds = {strike.fault for strike in one.strikes}
        jobs = sum(len(specs) for _, specs in one.submissions)
        assert len(one.hosts) >= 3 and jobs >= 10
        assert len(one.strikes) >= 3 and len(kinds) >= 2


def test_about_a_quarter_of_the_seeds_goes_over_xmpp_if_nothing_else_is_wanted() -> None:
    drawn = [plan(seed).carrier for seed in range(BASE, BASE + FULL)]
    assert FULL / 5 < drawn.count(Carrier.XMPP) < FULL / 3
    for carrier in Carrier:
        wanted = [plan(seed, carrier) for seed in range(BASE, BASE + 300)]
        assert {one.carrier for one in wanted} == {carrier}
        faults = {strike.fault for one in wanted for strike in one.strikes}
        assert (faults >= XMPP_FAULTS) == (carrier is Carrier.XMPP)


def test_a_trace_says_what_carries_the_conversation(repository: Path) -> None:
    assert plan(174).carrier is Carrier.XMPP
    assert b" seed 174 over xmpp\n" in _trace(174, repository, "0")


@pytest.mark.parametrize("seed", [11, 174, 4711])
def test_the_same_seed_gives_the_same_trace_in_any_process(seed: int, repository: Path) -> None:
    traces = [_trace(seed, repository, hashing) for hashing in ("0", "1", "random")]
    assert len(traces[0].splitlines()) > 100
    assert traces[0] == traces[1] == traces[2]


def test_a_trace_does_not_depend_on_what_ran_before(repository: Path) -> None:
    code = (
        "from tests.simulation import isolation; isolation.patch();"
        "from tests.simulation.world import simulate;"
        "[simulate(seed) for seed in (1, 2, 3)]; print(simulate(11).trace, end='')"
    )
    command = [sys.executable, "-c", code]
    after_others = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
    assert after_others == _trace(11, repository, "0")


def _trace(seed: int, repository: Path, hashing: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", f"seed:{seed}"],
        cwd=repository,
        env={**os.environ, "PYTHONHASHSEED": hashing},
        capture_output=True,
        check=True,
    )
    return done.stdout
