"""Raw wait statuses."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.wait_status import Ending, ending_of, status_of
from tests.unit.copilot_agent.protocol.copilot1.strategies import statuses


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (0, Ending(0)),
        (768, Ending(3)),
        (1280, Ending(5)),
        (35072, Ending(137, 9)),
        (9, Ending(None, 9)),
        (255 << 8, Ending(255)),
        (128 << 8, Ending(128)),
    ],
)
def test_recorded_and_other_statuses_mean(status: int, ending: Ending) -> None:
    assert ending_of(status) == ending
    assert status_of(ending) == status
    assert ending.succeeded == (status == 0)


def test_a_core_dump_is_still_death_by_its_signal() -> None:
    assert ending_of(0x80 | signal.SIGSEGV) == Ending(None, signal.SIGSEGV)


@pytest.mark.parametrize("what", ["sys.exit(5)", "os.kill(os.getpid(), 15)"])
def test_it_is_what_wait_says(what: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", f"import os, sys; {what}"])
    _, status = os.waitpid(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    expected = Ending(5) if child.returncode == 5 else Ending(None, 15)
    assert ending_of(status) == expected


@given(statuses)
def test_every_status_comes_back(status: int) -> None:
    assert status_of(ending_of(status)) == status


@given(st.sampled_from([-1, 65536, 10**30, 127, 0x7F | 3 << 8, 1 << 8 | 9, 0x80 | 1 << 8]))
def test_statuses_that_no_ended_process_has_are_refused(status: int) -> None:
    with pytest.raises(StanzaError, match=r"^exitCode: must be a wait status"):
        ending_of(status)


@pytest.mark.parametrize("ending", [Ending(None), Ending(256), Ending(-1), Ending(None, 127)])
def test_endings_that_no_process_has_are_refused(ending: Ending) -> None:
    with pytest.raises(StanzaError, match=r"^exitCode: must be that of an ended process$"):
        status_of(ending)
