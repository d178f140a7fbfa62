"""The commands without a running launcher, and what is printed."""

import json
import logging
from pathlib import Path

import pytest

from vm_launcher.cli import main
from vm_launcher.cli.run import JsonFormatter
from vm_launcher.state import StateDirectory, Status


@pytest.mark.parametrize("command", ["status", "pause", "resume", "save", "finish", "stop"])
def test_without_a_launcher(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--state", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "no launcher runs" in said
    assert "vm-launcher run" in said


def test_a_boinc_task_by_hand_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["boinc-task"]) == 1
    said = capsys.readouterr().err
    assert "no slot of a BOINC client: init_data.xml is not there" in said
    assert "vm-launcher run" in said
    assert list(tmp_path.iterdir()) == []


def test_a_refused_flag_is_named_as_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "owner.toml"
    file.write_text("[vm]\nmemory_mib = 1\n")
    words = ["--image", "i", "--image-key", "k", "--enrolment-file", "e", "--state", "s"]
    assert main(["run", "--config", str(file), "--cpus", "0", *words]) == 2
    said = capsys.readouterr().err
    assert "--manager: is missing" in said
    assert "--cpus: must be at least 1" in said
    assert "vm.memory_mib: must be at least 256" in said, "this one is the file's"


def test_status_of_a_launcher_that_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = Status(state="saved", outcome="saved", message="the VM is saved", credit_granted=2.5)
    StateDirectory(tmp_path).write_status(status)
    assert main(["status", "--state", str(tmp_path), "--watch"]) == 0
    text = capsys.readouterr().out
    assert "saved (no launcher runs)" in text
    assert "2.50 from" in text


def test_the_words_fit_the_numbers_and_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = Status(state="gone", finishing=True, receipts=1, network={"refused": 1})
    StateDirectory(tmp_path).write_status(status)
    main(["status", "--state", str(tmp_path)])
    text = capsys.readouterr().out
    assert "from 1 receipt\n" in text
    assert "1 connection refused" in text
    assert "VM         gone (no launcher runs)" in text


def test_no_terminal_obeys_the_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(
        state="saved",
        guest_message="a\x9b2Jb\u202ec\x1b[31m",
        jobs=[{"name": "n\x9d0;title\x07", "experiment": "e\r\n"}],
    )
    StateDirectory(tmp_path).write_status(status)
    assert main(["status", "--state", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "a?2Jb?c?[31m" in text
    assert text.replace("\n", "").isprintable()


def test_status_of_a_launcher_that_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    StateDirectory(tmp_path).write_status(Status(state="running", pid=4711))
    assert main(["status", "--state", str(tmp_path), "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pid"], found["state"]) == (0, "gone")
    assert found["message"] == "the launcher ended without a word"


def test_run_names_every_missing_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    for flag in ("--manager", "--image", "--image-key", "--enrolment-file", "--state"):
        assert flag in said


def test_a_log_line_as_json() -> None:
    record = logging.LogRecord("vm_launcher", logging.INFO, "", 0, "vm %s", ("running",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "vm running"
