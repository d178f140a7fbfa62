import json
import logging
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.boot import Arrival, next_epoch
from copilot_agent.cli import main
from copilot_agent.host_channel.ports import Port
from copilot_agent.settings import manager_url, payload_user
from copilot_agent.version import VERSION


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command sets up logging for its whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


REPOSITORY = Path(__file__).parents[3]


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_probe_prints_capabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--state", str(tmp_path), "--cores", "3", "--memory", "100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cores"], found["memory_mib"]) == (3, 100)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "copilot-agent run --manager https://" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--manager", "nonsense"], "no URL"),
        (["--manager", "http://x", "--enrolment-file", "/nonexistent"], "enrolment secret"),
        (["--manager", "http://x", "--payload-user", "root"], "never run as root"),
        (["--manager", "http://x", "--payload-user", "0"], "never run as root"),
        (["--manager", "http://x", "--payload-user", "nobody-here"], "no user"),
        (["--manager", "http://x", "--ca", "/nonexistent"], "nonexistent"),
    ],
)
def test_wrong_use_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["run", "--state", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_more_disk_than_there_is_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPILOT_ENROLMENT", "s" * 43)
    state = ["--state", str(tmp_path), "--manager", "http://x"]
    assert main(["run", *state, "--disk", "16000000"]) == 2
    assert "lower --disk" in capsys.readouterr().err


def test_payload_users_are_names_or_numbers() -> None:
    assert payload_user("200000").uid == 200000
    assert payload_user("nobody").uid > 0


def test_a_managers_url_loses_its_slash() -> None:
    assert manager_url("https://m.example.org/") == "https://m.example.org"


def test_epochs_count_on_over_starts(tmp_path: Path) -> None:
    assert [next_epoch(tmp_path), next_epoch(tmp_path), next_epoch(tmp_path, 10)] == [1, 2, 10]
    assert next_epoch(tmp_path) == 11


def test_the_welcomes_arrival_is_noted_and_nothing_of_it_taken() -> None:
    guest, launcher = socket.socketpair()
    port = Port.over(guest)
    begin = time.monotonic()
    arrival = Arrival(port)
    launcher.sendall(b"welcome")
    while arrival.monotonic is None:
        assert time.monotonic() < begin + 10
        time.sleep(0.001)
    assert begin <= arrival.monotonic <= time.monotonic()
    assert port.read() == b"welcome"
    port.close()
    launcher.close()
