"""What outlives an agent's death, and what it looks for and says about its guest."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from copilot_agent.core.copilot1.words import Assignment
from copilot_agent.protocol.copilot1.machine import machine_text, parse_machine
from copilot_agent.transports.copilot1.assignments import Assignments
from copilot_agent.transports.copilot1.machine import machine
from copilot_agent.transports.copilot1.search import Search

KEY = f"j-{1:020d}"
JOB = Assignment(key=KEY, job="job-1", giver="jm@x/alpha", exit_status=768, done_id="id")


def test_assignments_are_there_for_the_next_agent(tmp_path: Path) -> None:
    Assignments(tmp_path).keep(JOB)
    assert Assignments(tmp_path).kept() == [JOB]
    Assignments(tmp_path).drop(KEY)
    assert Assignments(tmp_path).kept() == []


def test_one_that_is_unreadable_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Assignments(tmp_path)
    kept.keep(JOB)
    (tmp_path / "assignments" / "j-0.json").write_text("{")
    assert kept.kept() == [JOB]
    assert "j-0.json is unreadable" in caplog.text
    assert kept.kept() == [JOB]


@pytest.mark.parametrize("content", ["", "[]", '{"at": "x"}', '{"at": null}', "{}"])
def test_nonsense_about_the_last_request_means_that_there_was_none(
    tmp_path: Path, content: str
) -> None:
    kept = Assignments(tmp_path)
    assert kept.seconds_since_asked() > 1e6
    (tmp_path / "asked.json").write_text(content)
    assert kept.seconds_since_asked() > 1e6


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_once(tmp_path: Path) -> None:
    kept = Assignments(tmp_path)
    kept.asked()
    assert 0 <= kept.seconds_since_asked() < 10
    (tmp_path / "asked.json").write_text(json.dumps({"at": time.time() + 1e6}))
    assert kept.seconds_since_asked() == 0


def test_the_machine_is_described_with_what_there_is(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2048000 kB\nMemFree: 1024000 kB\nSwapTotal: 0 kB\nX: 1\n")
    text = machine_text(machine(tmp_path, meminfo))
    found = parse_machine(text)
    assert (found.memory_mib, found.free_memory_mib) == (2000, 1000)
    assert "Swap" not in text
    assert found.free_disk_kib


async def test_a_search_that_hangs_is_answered_with_no_and_so_are_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    hang = threading.Event()

    def exists(path: Path) -> bool:
        asked.append(path)
        return bool(hang.wait(20))

    monkeypatch.setattr("copilot_agent.transports.copilot1.search._exists", exists)
    search = Search(look_seconds=0.05)
    assert not await search.finds("/net/x")
    assert not await search.finds("/net/y")
    assert asked == [Path("/net/x")]
    hang.set()
    await asyncio.wait_for(asyncio.shield(search._found or asyncio.sleep(0)), 5)
    assert await search.finds("/net/z")


async def test_a_search_finds_what_is_there_and_survives_what_cannot_be_looked_for(
    tmp_path: Path,
) -> None:
    search = Search()
    assert await search.finds(str(tmp_path))
    assert not await search.finds(str(tmp_path / "none"))
    assert not await search.finds("/" + "x" * 5000)
