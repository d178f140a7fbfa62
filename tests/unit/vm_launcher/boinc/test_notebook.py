"""What a task remembers over restarts."""

from pathlib import Path

import pytest

from vm_launcher.boinc.notebook import Notebook
from vm_launcher.core.task_progress import Progress

DONE = Progress(running_seconds=12.5, jobs_succeeded=3, receipts=3, finish_soon=True)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    Notebook(path).write(DONE)
    assert Notebook(path).read() == DONE


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 4096, '{"running_seconds": -1}', '{"receipts": "many"}']
)
def test_a_damaged_one_is_a_new_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    assert Notebook(path).read() == Progress()


def test_a_guest_that_counts_too_far_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    beyond = Progress(jobs_succeeded=1 << 41, jobs_failed=1 << 70, trickled_seconds=1e15)
    Notebook(path).write(beyond)
    assert Notebook(path).read().jobs_failed >= 1 << 40


def test_fields_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text('{"version": 2, "running_seconds": 5, "weather": "fine"}')
    assert Notebook(path).read().running_seconds == 5


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    notebook = Notebook(path)
    notebook.write(DONE)
    path.unlink()
    notebook.write(DONE)
    assert not path.exists()


def test_a_full_disk_is_no_failure_and_it_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.with_suffix(".part").mkdir()  # as good as no room
    notebook = Notebook(path)
    notebook.write(DONE)
    path.with_suffix(".part").rmdir()
    notebook.write(DONE)
    assert Notebook(path).read() == DONE
