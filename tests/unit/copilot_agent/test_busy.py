"""How busy the processors have been, against Linux's own accounts."""

import os
import time
from pathlib import Path

from copilot_agent.busy import busy_seconds

STAT = """\
cpu  900 0 800 {idle} {waiting} 0 0 {stolen} 7 0
cpu0 450 0 400 1 1 0 0 0 0 0
cpu1 450 0 400 1 1 0 0 0 0 0
intr 14990695 0 0
ctxt 5
"""


def test_all_is_busy_but_idle_waiting_and_stolen_time(tmp_path: Path) -> None:
    stat, ticks = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    uptime = time.clock_gettime(time.CLOCK_MONOTONIC)
    stat.write_text(STAT.format(idle=int(uptime * ticks), waiting=30 * ticks, stolen=10 * ticks))
    busy = busy_seconds(stat) - uptime + 40
    later = time.clock_gettime(time.CLOCK_MONOTONIC) - uptime
    assert -0.1 < busy < 2 * later + 0.1


def test_a_counter_that_makes_no_sense_is_no_negative_time(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(idle=1 << 60, waiting=0, stolen=0))
    assert busy_seconds(stat) == 0.0


def test_what_spins_is_busy() -> None:
    before, begun = busy_seconds(), time.process_time()
    while time.process_time() - begun < 0.3:
        pass
    assert busy_seconds() - before > 0.2
