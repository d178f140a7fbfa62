"""What a task's VM gets of the computer."""

import pytest

from vm_launcher.boinc.init_data import InitData
from vm_launcher.boinc.preferences import TooLittleMemoryError, bounds
from vm_launcher.boinc.task_settings import TaskVm

MIB = 1 << 20
PROJECT = TaskVm(cpus=4, memory_mib=1024)


def given(**fields: float) -> InitData:
    return InitData.model_validate(fields)


def test_a_volunteer_without_wishes_gives_what_the_project_asks_for() -> None:
    found = bounds(PROJECT, given(ncpus=4, m_nbytes=8192 * MIB))
    assert (found.cpus, found.cpu_percent, found.memory_mib) == (4, 100, 1024)
    assert found.bytes_per_second is None
    assert found.bytes_per_day is None


def test_processors_are_those_of_the_client() -> None:
    assert bounds(PROJECT, given(ncpus=2)).cpus == 2
    assert bounds(PROJECT, given(ncpus=0.5)).cpus == 1
    assert bounds(PROJECT, given(ncpus=1), threads=3).cpus == 3
    assert bounds(PROJECT, given(ncpus=16), threads=16).cpus == 4


def test_the_share_of_the_processor_is_the_volunteers() -> None:
    assert bounds(PROJECT, given(cpu_usage_limit=49.6)).cpu_percent == 50
    assert bounds(PROJECT, given(cpu_usage_limit=0.2)).cpu_percent == 1


def test_memory_is_what_the_stricter_preference_leaves() -> None:
    computer = {"m_nbytes": 2048.0 * MIB, "ram_max_used_idle_pct": 90.0}
    assert bounds(PROJECT, given(**computer, ram_max_used_busy_pct=50.0)).memory_mib == 896
    with pytest.raises(TooLittleMemoryError, match=r"384 MiB of memory, .* allow 204 MiB"):
        bounds(PROJECT, given(**computer, ram_max_used_busy_pct=10.0))


def test_transfer_limits() -> None:
    found = bounds(PROJECT, given(max_bytes_sec_up=50_000, max_bytes_sec_down=9_000_000))
    assert found.bytes_per_second == 50_000
    assert bounds(PROJECT, given(max_bytes_sec_up=10)).bytes_per_second == 1024
    week = given(daily_xfer_limit_mb=700, daily_xfer_period_days=7)
    assert bounds(PROJECT, week).bytes_per_day == 100 * MIB
    assert bounds(PROJECT, given(daily_xfer_limit_mb=700)).bytes_per_day is None
