"""Which program is meant."""

from pathlib import Path

import pytest

from copilot_agent.payload.launch import PayloadStartError, find_program
from copilot_agent.protocol.job import FailureClass


@pytest.mark.parametrize("name", ["nothing-of-that-name", "a" * 3000])
def test_a_program_that_cannot_be_is_the_jobs_fault(name: str, tmp_path: Path) -> None:
    with pytest.raises(PayloadStartError) as caught:
        find_program(name, tmp_path, "/usr/bin:/bin")
    assert caught.value.failure_class is FailureClass.ENVIRONMENT
