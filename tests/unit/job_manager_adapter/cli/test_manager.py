"""The manager's command line: what needs no manager."""

import argparse
import logging
import stat
from pathlib import Path

import pytest

from job_manager_adapter.cli.manager import OneLine, build_parser, main
from job_manager_adapter.cli.manager_doctor import examine
from job_manager_adapter.cli.manager_secrets import duration
from job_manager_adapter.settings import load


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43200), ("7d", 604800), ("2w", 1209600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "0d", "1y", "9" * 20 + "d", "١d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="7d"):
        duration(text)


def test_help_has_examples_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["enrolment", "--help"], ["token", "--help"]):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args(arguments)
        assert caught.value.code == 0
        assert "examples:" in capsys.readouterr().out


def test_a_wrong_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "manager.toml"
    path.write_text("[server]\nprot = 1\n")
    assert main(["--config", str(path), "config", "check"]) == 1
    error = capsys.readouterr().err
    assert "server.prot" in error
    assert str(path) in error


def test_global_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--data-dir", "/tmp/there", "config", "show"],
        ["config", "--data-dir=/tmp/there", "show"],
        ["config", "show", "--data-dir", "/tmp/there"],
    ):
        assert main(arguments) == 0
        assert 'data_dir = "/tmp/there"' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["config", "show", "--data-dir"])


def test_a_record_is_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "a\nb\x1b[31m\u202e\x00", (), None)
    line = OneLine("%(message)s").format(record)
    assert line.isprintable()
    assert line.startswith("a\\nb")


def test_doctor_finds_loose_rights_and_a_full_disk(tmp_path: Path) -> None:
    settings = load(None, {"data_dir": str(tmp_path), "limits.free_space_mib": 1 << 30})
    tmp_path.chmod(0o755)
    found = {finding.what: finding for finding in examine(settings)}
    assert "chmod 700" in found["data directory"].remedy
    assert found["disk"].remedy
    assert not found["clock"].remedy


def test_init_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "manager.toml"
    assert main(["config", "init", str(path)]) == 0
    assert stat.S_ISREG(path.stat().st_mode)
    assert main(["config", "init", str(path)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_check_knows_the_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "manager.toml"
    path.write_text('[experiments.demo]\nadapter = "queeue"\n')
    assert main(["--config", str(path), "config", "check"]) == 1
    assert "there is no adapter 'queeue'" in capsys.readouterr().err


def test_tokens_are_listed_under_titles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["--data-dir", str(tmp_path), "token", "create", "--new", "--role", "operator"]
    assert main([*create, "--label", "alice"]) == 0
    capsys.readouterr()
    assert main(["--data-dir", str(tmp_path), "token", "list"]) == 0
    titles, line = capsys.readouterr().out.splitlines()
    assert titles.split() == ["TOKEN", "FOR", "STATE", "EXPIRES", "LABEL"]
    assert line.split()[1:] == ["operator", "valid", "never", "alice"]


@pytest.mark.parametrize(
    "words", [["token", "create", "--role", "operator"], ["enrolment", "create"]]
)
def test_nothing_is_created_for_a_manager_that_never_was(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert main(["--data-dir", str(data), *words]) == 1
    said = capsys.readouterr()
    assert f"no manager has ever served with the data directory {data}" in said.err
    assert "--config FILE" in said.err and said.out == "" and not data.exists()
    assert main(["--data-dir", str(data), *words, "--new", "--output", "quiet"]) == 0
    assert len(capsys.readouterr().out.split()) == 1
