"""What others can read of a launcher."""

from pathlib import Path

import pytest

from vm_launcher.report import Reporter
from vm_launcher.state import StateDirectory, Status


def test_a_full_disk_does_not_end_the_vm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateDirectory(tmp_path)
    state.status.with_suffix(".part").mkdir()  # as good as no room
    reporter = Reporter(state, Status(pid=7))
    reporter.write()
    reporter.write()
    assert caplog.text.count("status.json cannot be written") == 1
    state.status.with_suffix(".part").rmdir()
    reporter.write()
    assert (read := state.read_status()) is not None
    assert read.pid == 7
