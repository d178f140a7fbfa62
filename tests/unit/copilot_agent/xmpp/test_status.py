"""What is told of a computer stands in the original's form, whatever names are in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.job_data import parse_job_data
from copilot_agent.protocol.copilot1.monitor_commands import HaveStatus
from copilot_agent.xmpp import computer, status
from copilot_agent.xmpp.computer import Disk, Load, Memory, Process
from tests.unit.copilot_agent.protocol.copilot1.recordings import recorded_commands

RECORDED = {
    command.component: parse_job_data(command.status).values
    for _, command in recorded_commands()
    if isinstance(command, HaveStatus)
}


def test_load_as_recorded() -> None:
    text = status.load_text(Load((2.38, 3.31, 2.82)))
    assert parse_job_data(text).values == RECORDED["systemLoad"]


def test_disks_as_recorded() -> None:
    text = status.disks_text([Disk("/dev/vda", "/", 258020, 30988, 72911)])
    assert parse_job_data(text).values == RECORDED["diskUsage"]


def test_processes_have_the_recorded_columns_and_no_arguments() -> None:
    recorded = RECORDED[""]
    text = status.processes_text(
        [Process(1, "redis-server", 0.1, 61, 0.0, 12308), Process(2, "perl", 3.7, 0, 0.1, 44492)]
    )
    values = parse_job_data(text).values
    assert values.keys() == recorded.keys()
    assert values["time"] == ("1:01", "0:00")
    assert values["rss"] == (recorded["rss"][0], recorded["rss"][7])
    assert values["command"] == ("redis-server", "perl")


def test_memory_has_the_columns_of_the_original() -> None:
    text = status.memory_text([Memory("mem", 512, 100), Memory("swap", 0, 0)])
    assert text == "memory=mem::::swap####used=512::::0####available=100::::0####"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_no_name_breaks_the_table(names: list[str]) -> None:
    text = status.processes_text([Process(1, name, 0, 0, 0, 0) for name in names])
    values = parse_job_data(text).values
    assert values.keys() == {"%cpu", "%mem", "rss", "time", "command"}
    told = values["command"]
    assert len(told if isinstance(told, tuple) else (told,)) == len(names)
    assert text.isprintable()


def test_the_longest_status_still_travels() -> None:
    name = "x" * 1000
    disks = [Disk(f"/dev/{name}", f"/{name}", 10**9, 10**9, 10**9)] * computer.MAX_DISKS
    processes = [Process(10**6, name, 100, 10**9, 100, 10**12)] * computer.MAX_PROCESSES
    for text in (status.disks_text(disks), status.processes_text(processes)):
        assert HaveStatus(status=text).status == text


def test_what_cannot_be_read_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Load:
        raise PermissionError

    assert status.status_of("systemLoad") != ""
    monkeypatch.setattr(computer, "load", broken)
    assert status.status_of("systemLoad") == ""
