"""The client's own files: quick, on loopback, and not stopped by what else the computer does."""

from __future__ import annotations

from collections.abc import Mapping

from tests.harness.boinc.xml import block, line

Preferences = Mapping[str, float | int]

_OPTIONS: Mapping[str, float | int] = {
    "skip_cpu_benchmarks": 1,
    "no_gpus": 1,
    "no_info_fetch": 1,
    "dont_contact_ref_site": 1,
    "allow_multiple_clients": 1,
    "report_results_immediately": 1,
    "fetch_on_update": 1,
    "start_delay": 0,
    "no_alt_platform": 1,
    # else two files at a time, a second each
    "max_file_xfers": 32,
    "max_file_xfers_per_project": 32,
    "save_stats_days": 1,
}
_LOG_FLAGS = (
    *("task_debug", "app_msg_send", "trickle_debug", "checkpoint_debug", "sched_op_debug"),
    *("slot_debug", "cpu_sched", "file_xfer_debug", "work_fetch_debug"),
)
_PREFERENCES: Preferences = {
    "run_on_batteries": 1,
    "run_if_user_active": 1,
    "suspend_cpu_usage": 0,  # other load on the computer would suspend every task
    "suspend_if_no_recent_input": 0,
    "leave_apps_in_memory": 0,
    "work_buf_min_days": 0.01,
    "work_buf_additional_days": 0,
    "disk_interval": 10,
    "disk_min_free_gb": 0.01,
    "disk_max_used_gb": 0,
    "disk_max_used_pct": 100,
    "ram_max_used_busy_pct": 90,
    "ram_max_used_idle_pct": 90,
    "max_ncpus_pct": 100,
    "cpu_usage_limit": 100,
    "cpu_scheduling_period_minutes": 60,
}


def cc_config(options: Mapping[str, float | int]) -> str:
    lines = (line(name, value) for name, value in {**_OPTIONS, **options}.items())
    logged = (line(name, 1) for name in _LOG_FLAGS)
    return block("cc_config", block("log_flags", *logged), block("options", *lines))


def preferences(changes: Preferences) -> str:
    lines = (line(name, value) for name, value in {**_PREFERENCES, **changes}.items())
    return block("global_preferences", *lines)
